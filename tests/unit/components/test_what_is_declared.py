"""What the program declares for given settings, recorded without an engine."""

from __future__ import annotations

import configparser
import json
from collections.abc import Callable
from typing import Any

import pulumi
import pytest

from components import images
from components.images import mirrored, version_of
from components.settings import PROJECT, load


class Recorder(pulumi.runtime.Mocks):
    """Answers as the engine would, and remembers what was asked for."""

    def __init__(self) -> None:
        self.asked: list[pulumi.runtime.MockResourceArgs] = []

    def new_resource(self, args: pulumi.runtime.MockResourceArgs) -> tuple[str, dict[str, Any]]:
        self.asked.append(args)
        made = {"result": f"secret-of-{args.name}", "hex": "0" * 16, "exitCode": 0, "imageId": "sha256:1"}
        return f"{args.name}-id", {**args.inputs, **made}

    def call(self, args: pulumi.runtime.MockCallArgs) -> tuple[dict[str, Any], list[tuple[str, str]]]:
        return {}, []

    def of_type(self, token: str) -> dict[str, dict[str, Any]]:
        return {asked.name: dict(asked.inputs) for asked in self.asked if asked.typ == token}

    @property
    def containers(self) -> dict[str, dict[str, Any]]:
        return self.of_type("docker:index/container:Container")

    @property
    def volumes(self) -> dict[str, dict[str, Any]]:
        return self.of_type("docker:index/volume:Volume")


Declare = Callable[..., tuple[Recorder, dict[str, Any]]]


@pytest.fixture
def declare() -> Declare:
    """Run the program's components for settings; what was declared, and the outputs."""

    def run(**given: Any) -> tuple[Recorder, dict[str, Any]]:
        recorder = Recorder()
        pulumi.runtime.set_mocks(recorder, project=PROJECT, stack="unit")
        raw = {
            f"{PROJECT}:{key}": value if isinstance(value, str) else json.dumps(value)
            for key, value in given.items()
        }
        found: dict[str, Any] = {}

        @pulumi.runtime.test
        def program() -> pulumi.Output[Any]:
            from components.langfuse import LangfuseArgs, LangfuseStack
            from components.mlflow import MlflowArgs, MlflowStack
            from components.outputs import outputs
            from components.site import Site
            from components.team import MlflowTeam, MlflowTeamArgs

            settings = load(raw, list(raw))
            site = Site("site", settings)
            mlflow = MlflowStack("mlflow", site, MlflowArgs(settings=settings.mlflow))
            langfuse = LangfuseStack("langfuse", site, LangfuseArgs(settings=settings.langfuse))
            team = MlflowTeam("team", MlflowTeamArgs(mlflow=mlflow)) if settings.mlflow.enabled else None
            return pulumi.Output.all(**outputs(site, mlflow, team, langfuse)).apply(found.update)

        program()
        return recorder, found

    return run


def _environment(container: dict[str, Any]) -> dict[str, str]:
    return dict(variable.split("=", 1) for variable in container["envs"])


def _uploads(container: dict[str, Any]) -> dict[str, str]:
    # As a whole a secret, in the form in which secrets go to the engine.
    return {upload["file"]: upload["content"] for upload in container["uploads"]["value"]}


def test_all_twelve_with_no_secret_outside_of_files(declare: Declare) -> None:
    recorder, found = declare(mlflowUsers=[{"name": "alice"}])
    assert len(recorder.containers) == 12
    for name, container in recorder.containers.items():
        shown = {key: value for key, value in container.items() if key != "uploads"}
        assert "secret-of" not in json.dumps(shown).replace("secret-of-langfuse-public-key", ""), name
        assert container["memory"] == container["memorySwap"] > 0
        assert container["capabilities"]["drops"] == ["ALL"]
    server = _uploads(recorder.containers["mlflow-server"])
    assert "secret-of-mlflow-postgres-password" in server["/run/secrets/MLFLOW_BACKEND_STORE_URI"]
    assert "admin_password = secret-of-mlflow-admin-password" in server["/etc/mlflow/basic_auth.ini"]
    assert set(found["mlflowUserPasswords"]) == {"alice"}


_PRINTABLE = "".join(map(chr, range(0x21, 0x7F)))


@pytest.mark.parametrize(
    "password",
    [
        f"{_PRINTABLE[:47]} {_PRINTABLE[47:]}",
        *(f"{sign}{sign} a password {sign}" for sign in "%=:;#[]$\"'\\"),
    ],
)
def test_every_password_that_the_settings_take_reaches_mlflow(declare: Declare, password: str) -> None:
    recorder, found = declare(mlflowAdminPassword=password)
    # As MLflow's server and the image's health check read it.
    config = configparser.ConfigParser()
    config.read_string(_uploads(recorder.containers["mlflow-server"])["/etc/mlflow/basic_auth.ini"])
    assert config["mlflow"]["admin_password"] == password
    assert found["mlflowAdminPassword"] == password


def test_what_is_managed_elsewhere_is_not_made_here(declare: Declare) -> None:
    mlflow_url = "postgresql+psycopg2://u:p%40ss@db.example.com:5432/mlflow?sslmode=require"
    recorder, _ = declare(
        mlflowDatabaseUrl=mlflow_url,
        mlflowAuthDatabaseUrl=mlflow_url.replace("/mlflow?", "/auth?"),
        mlflowS3Endpoint="https://s3.example.com",
        mlflowS3Region="eu-central-1",
        mlflowS3AccessKeyId="an-access-key",
        mlflowS3SecretAccessKey="a-secret-key",
        langfuseDatabaseUrl="postgresql://u:p@db.example.com:5432/langfuse",
        langfuseClickhouseUrl="https://ch.example.com:8443",
        langfuseClickhouseMigrationUrl="clickhouse://ch.example.com:9440",
        langfuseClickhousePassword="ClickhousePassword1",
        langfuseRedisUrl="rediss://:p@redis.example.com:6380",
        langfuseS3Endpoint="https://s3.example.com",
        langfuseS3AccessKeyId="an-access-key",
        langfuseS3SecretAccessKey="a-secret-key",
    )
    assert set(recorder.containers) == {"mlflow-server", "langfuse-web", "langfuse-worker"}
    assert recorder.volumes == {}
    server = recorder.containers["mlflow-server"]
    assert _uploads(server)["/run/secrets/MLFLOW_BACKEND_STORE_URI"] == mlflow_url
    # A percent sign is doubled in an ini file.
    assert "p%%40ss@db.example.com:5432/auth?" in _uploads(server)["/etc/mlflow/basic_auth.ini"]
    assert _environment(server)["MLFLOW_S3_ENDPOINT_URL"] == "https://s3.example.com"
    assert _environment(server)["AWS_DEFAULT_REGION"] == "eu-central-1"
    web = recorder.containers["langfuse-web"]
    assert "REDIS_CONNECTION_STRING='rediss://:p@redis" in _uploads(web)["/run/secrets/environment"]
    assert "REDIS_HOST" not in _environment(web)
    for limit in ("LANGFUSE_S3_EVENT_KEY_MAX_SEGMENT_BYTES", "CLICKHOUSE_MAX_BYTES_BEFORE_EXTERNAL_GROUP_BY"):
        assert limit not in _environment(web)
    assert _environment(web)["CLICKHOUSE_MIGRATION_SSL"] == "true"
    assert _environment(web)["LANGFUSE_S3_MEDIA_UPLOAD_ENDPOINT"] == "https://s3.example.com"


def test_browsers_upload_to_the_published_address_and_the_worker_to_the_inner_one(declare: Declare) -> None:
    recorder, _ = declare(langfuseMinioPort=9999)
    web, worker = (_environment(recorder.containers[f"langfuse-{half}"]) for half in ("web", "worker"))
    assert web["LANGFUSE_S3_MEDIA_UPLOAD_ENDPOINT"] == "http://localhost:9999"
    assert worker["LANGFUSE_S3_MEDIA_UPLOAD_ENDPOINT"] == "http://langfuse-minio:9000"
    assert web["LANGFUSE_S3_EVENT_UPLOAD_ENDPOINT"] == "http://langfuse-minio:9000"


def test_langfuse_knows_the_limits_of_the_stores_beside_it(declare: Declare) -> None:
    recorder, _ = declare(langfuseClickhouseMemory="5g")
    for half in ("langfuse-web", "langfuse-worker"):
        environment = _environment(recorder.containers[half])
        assert environment["LANGFUSE_S3_EVENT_KEY_MAX_SEGMENT_BYTES"] == "255"
        assert environment["CLICKHOUSE_MAX_BYTES_BEFORE_EXTERNAL_GROUP_BY"] == str(2 << 30)


def test_a_proxys_address_is_what_people_are_told(declare: Declare) -> None:
    recorder, found = declare(
        mlflowPublicUrl="https://mlflow.example.com", langfusePublicUrl="https://langfuse.example.com"
    )
    assert (found["mlflowUrl"], found["langfuseUrl"]) == (
        "https://mlflow.example.com",
        "https://langfuse.example.com",
    )
    server = _environment(recorder.containers["mlflow-server"])
    assert "mlflow.example.com" in server["MLFLOW_SERVER_ALLOWED_HOSTS"].split(",")
    assert _environment(recorder.containers["langfuse-web"])["NEXTAUTH_URL"] == "https://langfuse.example.com"


def test_mlflow_answers_to_an_address_as_clients_send_it(declare: Declare) -> None:
    recorder, _ = declare(mlflowBootstrapUrl="http://[fd00::5]:5000")
    server = _environment(recorder.containers["mlflow-server"])
    assert "[fd00::5]:*" in server["MLFLOW_SERVER_ALLOWED_HOSTS"].split(",")


def test_both_halves_of_langfuse_sign_urls_that_browsers_reach(declare: Declare) -> None:
    recorder, _ = declare()
    for half in ("langfuse-web", "langfuse-worker"):
        exports = _environment(recorder.containers[half])["LANGFUSE_S3_BATCH_EXPORT_EXTERNAL_ENDPOINT"]
        assert exports == "http://localhost:9090"
    recorder, _ = declare(langfuseMediaUrl="https://media.example.com")
    worker = _environment(recorder.containers["langfuse-worker"])
    assert worker["LANGFUSE_S3_BATCH_EXPORT_EXTERNAL_ENDPOINT"] == "https://media.example.com"


def test_a_pinned_image_keeps_its_tag_which_tells_its_version(monkeypatch: pytest.MonkeyPatch) -> None:
    pinned = {images.TABLE["postgres"]: f"sha256:{'c' * 64}"}
    monkeypatch.setattr(images, "digests", lambda: pinned)
    found = images.reference("postgres", load({}))
    assert found == f"{images.TABLE['postgres']}@sha256:{'c' * 64}"
    assert version_of(found) == version_of(images.TABLE["postgres"])


@pytest.mark.parametrize("off", ["mlflow", "langfuse"])
def test_a_product_that_is_off_keeps_its_volumes_and_nothing_else(declare: Declare, off: str) -> None:
    recorder, found = declare(**{f"{off}Enabled": False})
    assert not [name for name in recorder.containers if name.startswith(off)]
    assert [name for name in recorder.volumes if off in name]
    assert not [name for name in found if name.startswith(off)]
    assert off.upper() not in found["clientEnv"]


def test_publishing_stores_gives_them_ports_on_the_bind_address(declare: Declare) -> None:
    recorder, found = declare(publishDataStores=True, bindAddress="192.0.2.7")
    published = {
        (port["ip"], port["external"])
        for container in recorder.containers.values()
        for port in container.get("ports") or []
    }
    assert published == {
        ("192.0.2.7", port) for port in (5000, 3000, 5432, 5433, 5434, 9000, 9001, 9090, 9091)
    }
    assert found["mlflowDatabases"]["mlflow-postgres"] == "postgresql://mlflow@192.0.2.7:5432/mlflow"
    assert found["mlflowMinioConsoleUrl"] == "http://192.0.2.7:9001"


def test_names_carry_the_prefix_and_aliases_do_not(declare: Declare) -> None:
    recorder, _ = declare(namePrefix="team-a-")
    container = recorder.containers["mlflow-postgres"]
    assert container["name"] == "team-a-mlflow-postgres"
    assert container["networksAdvanced"][0]["aliases"] == ["mlflow-postgres"]
    assert all(volume["name"].startswith("team-a-") for volume in recorder.volumes.values())


@pytest.mark.parametrize(
    ("reference", "expected"),
    [
        ("postgres:17.6", "m.example.com/library/postgres:17.6"),
        ("langfuse/langfuse:3.1.0", "m.example.com/langfuse/langfuse:3.1.0"),
        ("quay.io/minio/minio:R1", "m.example.com/minio/minio:R1"),
        ("localhost/a/b:1", "m.example.com/a/b:1"),
        ("localhost:5000/b:1", "m.example.com/b:1"),
        (f"postgres@sha256:{'a' * 64}", f"m.example.com/library/postgres@sha256:{'a' * 64}"),
    ],
)
def test_a_mirror_keeps_the_repositories_paths(reference: str, expected: str) -> None:
    assert mirrored(reference, "m.example.com") == expected
    assert mirrored(reference, "") == reference


@pytest.mark.parametrize(
    ("reference", "expected"),
    [
        ("r:5000/a/b:1.2", "1.2"),
        (f"a@sha256:{'b' * 64}", "sha256:bbbbbbbbbbbb"),
        (f"a:1@sha256:{'b' * 64}", "1"),
    ],
)
def test_a_version_is_a_tag_or_a_short_digest(reference: str, expected: str) -> None:
    assert version_of(reference) == expected
