"""A stack over databases and an S3 that somebody else runs: nothing of the kind is made, and the data lies there."""

from __future__ import annotations

import json
import secrets
from collections.abc import Iterator
from ipaddress import ip_network

import pytest
import requests

from tests.conditions import free_port
from tests.deployment import Deployment
from tests.engine import Container, Engine, docker


@pytest.fixture(scope="module")
def address() -> str:
    """Where containers reach the machine: services there are as far away as those of a cloud."""
    (config,) = json.loads(docker("network", "inspect", "bridge").stdout)[0]["IPAM"]["Config"]
    # An engine says the first one only after it found the network at its start.
    return config.get("Gateway") or str(next(ip_network(config["Subnet"]).hosts()))


@pytest.fixture(scope="module")
def elsewhere(images: dict[str, str]) -> Iterator[Engine]:
    engine = Engine(images.__getitem__)
    yield engine
    engine.close()


@pytest.fixture(scope="module")
def database(elsewhere: Engine, address: str) -> tuple[Container, str]:
    """A Postgres with two databases, and the beginning of their URLs; the password needs escaping."""
    port = free_port()
    postgres = elsewhere.run(
        "postgres",
        *(
            f"--publish={address}:{port}:5432",
            "--env=POSTGRES_USER=team",
            "--env=POSTGRES_PASSWORD=p@ss%word",
        ),
    )
    postgres.wait_for("psql", "-h", "127.0.0.1", "-U", "team", "-c", "SELECT 1")
    for name in ("tracking", "accounts"):
        postgres.exec("createdb", "-U", "team", name)
    return postgres, f"postgresql+psycopg2://team:p%40ss%25word@{address}:{port}"


@pytest.fixture(scope="module")
def s3(elsewhere: Engine, address: str) -> tuple[Container, str, str]:
    port, password = free_port(), secrets.token_hex(16)
    minio = elsewhere.run(
        "minio",
        *(f"--publish={address}:{port}:9000", "--env=MINIO_ROOT_USER=team-key"),
        f"--env=MINIO_ROOT_PASSWORD={password}",
        command=("server", "/data"),
    )
    minio.wait_for("curl", "-f", "http://127.0.0.1:9000/minio/health/live")
    minio.exec("mkdir", "/data/team-artifacts")
    return minio, f"http://{address}:{port}", password


def test_mlflow_runs_over_managed_services(
    empty: Deployment, database: tuple[Container, str], s3: tuple[Container, str, str]
) -> None:
    (postgres, url), (minio, endpoint, password) = database, s3
    empty.configure(mlflowS3Endpoint=endpoint, mlflowBucket="team-artifacts")
    empty.configure_secret("mlflowDatabaseUrl", f"{url}/tracking")
    empty.configure_secret("mlflowAuthDatabaseUrl", f"{url}/accounts")
    empty.configure_secret("mlflowS3AccessKeyId", "team-key")
    empty.configure_secret("mlflowS3SecretAccessKey", password)
    empty.up().ok()
    assert list(empty.containers()) == [empty.container("mlflow-server")]

    outputs = empty.outputs()
    auth = (outputs["mlflowAdminUsername"], outputs["mlflowAdminPassword"])
    api = f"{outputs['mlflowUrl']}/api/2.0"
    made = requests.post(f"{api}/mlflow/experiments/create", json={"name": "far"}, auth=auth, timeout=30)
    run = requests.post(
        f"{api}/mlflow/runs/create", json={**made.json(), "start_time": 1}, auth=auth, timeout=30
    ).json()["run"]["info"]
    path = f"{run['experiment_id']}/{run['run_id']}/artifacts/note.txt"
    requests.put(
        f"{api}/mlflow-artifacts/artifacts/{path}", data=b"kept far away", auth=auth, timeout=30
    ).raise_for_status()

    # MinIO keeps an object as a folder of its name.
    assert "xl.meta" in minio.exec("ls", f"/data/team-artifacts/{path}").stdout
    query = ("psql", "-U", "team", "-At", "-c")
    names = postgres.exec(*query, "SELECT name FROM experiments", "tracking").stdout.split()
    assert "far" in names
    assert postgres.exec(*query, "SELECT username FROM users", "accounts").stdout.split() == [auth[0]]
    text = docker("inspect", empty.container("mlflow-server")).stdout
    assert "p%40ss" not in text
    assert password not in text
    empty.pulumi("destroy", "--yes", "--skip-preview").ok()
    assert empty.left_over() == []


_MANAGED = (
    *("mlflowDatabaseUrl", "mlflowAuthDatabaseUrl", "mlflowS3Endpoint"),
    *("mlflowS3AccessKeyId", "mlflowS3SecretAccessKey"),
)


def test_a_running_stack_moves_to_a_managed_database_and_back_and_keeps_what_it_had(
    empty: Deployment, database: tuple[Container, str]
) -> None:
    postgres, url = database
    postgres.exec("createdb", "-U", "team", "moved")
    kept = empty.container("mlflow-postgres-data")
    empty.docker("volume", "create", kept)  # by hand, as for a disk of its own
    with empty.changed(dataRetention="keep", **dict.fromkeys(_MANAGED)):
        empty.up().ok()
        assert empty.container("mlflow-postgres") in empty.containers()
        outputs = empty.outputs()
        auth = (outputs["mlflowAdminUsername"], outputs["mlflowAdminPassword"])
        experiments = f"{outputs['mlflowUrl']}/api/2.0/mlflow/experiments"

        def known(name: str) -> bool:
            found = requests.get(
                f"{experiments}/get-by-name", params={"experiment_name": name}, auth=auth, timeout=30
            )
            return found.ok

        requests.post(
            f"{experiments}/create", json={"name": "near"}, auth=auth, timeout=30
        ).raise_for_status()

        empty.configure_secret("mlflowDatabaseUrl", f"{url}/moved")
        empty.up().ok()
        assert empty.container("mlflow-postgres") not in empty.containers()
        assert kept in empty.left_over()
        assert not known("near")
        empty.up("--expect-no-changes").ok()

        empty.configure(mlflowDatabaseUrl=None)
        empty.up().ok()
        assert known("near")
        empty.pulumi("state", "unprotect", "--all", "--yes").ok()
        empty.pulumi("destroy", "--yes", "--skip-preview").ok()
    assert empty.left_over() == []
