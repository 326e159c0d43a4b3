"""What the program refuses for the sake of the data that is there, told by the labels of the stack's containers."""

from __future__ import annotations

import base64
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from components import preflight
from components.problems import ProblemsError
from components.secrets import fingerprint
from components.settings import PROJECT, load

STACK = f"{PROJECT}/dev"


def _container(service: str, version: str, stack: str = STACK) -> dict[str, Any]:
    labels = {"service": service, "version": version, "stack": stack}
    return {
        "Name": f"/{service}",
        "Config": {"Labels": {f"{PROJECT}.{key}": value for key, value in labels.items()}},
    }


def _refused(
    monkeypatch: pytest.MonkeyPatch,
    containers: list[dict[str, Any]],
    *,
    volumes: Sequence[tuple[str, str]] = (),
    networks: Sequence[tuple[str, str]] = (),
    **settings: Any,
) -> list[str]:
    monkeypatch.setattr(preflight, "_look", lambda: preflight._Engine(containers, volumes, networks))
    monkeypatch.setattr(preflight, "_busy", lambda address, port: False)
    raw = {
        f"{PROJECT}:{key}": value if isinstance(value, str) else json.dumps(value)
        for key, value in settings.items()
    }
    loaded = load(raw, list(raw))
    try:
        preflight.check(loaded, STACK)
    except ProblemsError as error:
        return [f"{problem.key} {problem.problem}" for problem in error.problems]
    return []


@pytest.mark.parametrize(
    ("before", "after", "refused"),
    [
        ("3.17.2", "3.4.0", True),
        ("3.4.0", "3.17.2", False),
        ("3.4.0", "3.4.0", False),
        ("a-registry/mlflow:3.17.2", "3.4.0", True),
        (f"a-registry/mlflow@sha256:{'0' * 64}", "3.4.0", False),
        ("a-registry/mlflow:7f3a9c1", "3.4.0", False),
        ("", "3.4.0", False),
    ],
)
def test_an_older_mlflow_is_refused(
    monkeypatch: pytest.MonkeyPatch, before: str, after: str, refused: bool
) -> None:
    found = _refused(monkeypatch, [_container("mlflow-server", before)], mlflowVersion=after)
    assert bool(found) == refused
    if refused:
        assert (
            "mlops-stack:mlflowVersion 3.4.0 cannot read the databases of mlflow-server, which runs 3.17.2"
            in found
        )


def test_an_older_langfuse_is_refused_and_a_patch_is_not(monkeypatch: pytest.MonkeyPatch) -> None:
    containers = [_container("langfuse-web", "3.225.4")]
    assert _refused(monkeypatch, containers, langfuseVersion="3.100.0")
    assert not _refused(monkeypatch, containers, langfuseVersion="3.225.1")


@pytest.mark.parametrize(
    ("before", "after", "refused"),
    [
        ("17.6-bookworm", "postgres:18.1", True),
        ("17.6-bookworm", "mirror/postgres:15", True),
        ("17.6-bookworm", "postgres:17.7", False),
        ("17.6-bookworm", f"postgres@sha256:{'0' * 64}", False),
    ],
)
def test_another_major_version_of_postgres_is_refused(
    monkeypatch: pytest.MonkeyPatch, before: str, after: str, refused: bool
) -> None:
    containers = [_container(service, before) for service in ("mlflow-postgres", "mlflow-postgres-auth")]
    found = _refused(monkeypatch, containers, images={"postgres": after})
    assert bool(found) == refused
    if refused:
        assert "data of mlflow-postgres, mlflow-postgres-auth, made by" in found[0]


def test_what_another_stack_runs_does_not_matter(monkeypatch: pytest.MonkeyPatch) -> None:
    containers = [_container("mlflow-server", "3.17.2", stack=f"{PROJECT}/other")]
    found = _refused(monkeypatch, containers, mlflowVersion="3.4.0", namePrefix="mine-")
    assert found == []


def test_a_container_that_goes_meanwhile_hides_no_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    docker = tmp_path / "docker"
    docker.write_text(
        '#!/bin/sh\ncase "$1" in ps) echo here gone ;; volume) echo "data mlops-stack/dev" ;; network) echo bridge ;;\n'
        '*) echo \'[{"Name": "/here"}]\'; exit 1 ;; esac\n'
    )
    docker.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    found = preflight._look()
    assert found.containers == [{"Name": "/here"}]
    assert found.volumes == [("data", STACK)]
    assert found.networks == [("bridge", "")]


OTHER = f"{PROJECT}/other"


@pytest.mark.parametrize(
    ("volumes", "settings", "refused"),
    [
        ([("mlflow-postgres-data", OTHER)], {}, True),
        ([("mlflow-postgres-data", "")], {}, False),
        ([("mlflow-postgres-data", STACK)], {}, False),
        ([("mlflow-postgres-data", OTHER)], {"namePrefix": "mine-"}, False),
        # Volumes of a product that is switched off are declared where data is kept.
        ([("langfuse-redis-data", OTHER)], {"langfuseEnabled": False}, True),
        ([("langfuse-redis-data", OTHER)], {"langfuseEnabled": False, "dataRetention": "delete"}, False),
        (
            [("langfuse-clickhouse-data", OTHER)],
            {
                "langfuseClickhouseUrl": "https://far",
                "langfuseClickhouseMigrationUrl": "clickhouse://far:9440",
                "langfuseClickhousePassword": "APasswordOfTheirs",
            },
            False,
        ),
    ],
)
def test_data_of_another_stack_is_not_taken_over(
    monkeypatch: pytest.MonkeyPatch,
    volumes: list[tuple[str, str]],
    settings: dict[str, Any],
    refused: bool,
) -> None:
    found = _refused(monkeypatch, [], volumes=volumes, **settings)
    said = f"mlops-stack:namePrefix the volume {volumes[0][0]} belongs to the stack {OTHER}"
    assert found == ([said] if refused else [])


def test_all_that_one_stack_has_is_told_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    volumes = [("mlflow-postgres-data", OTHER), ("mlflow-minio-data", OTHER)]
    (found,) = _refused(monkeypatch, [], volumes=volumes)
    assert f"the volumes mlflow-postgres-data, mlflow-minio-data belong to the stack {OTHER}" in found


@pytest.mark.parametrize("owner", [OTHER, ""])
def test_a_network_of_this_name_is_named_before_anything_is_made(
    monkeypatch: pytest.MonkeyPatch, owner: str
) -> None:
    networks = [("mlops-stack-edge", owner), ("mlops-stack-mlflow", STACK)]
    (found,) = _refused(monkeypatch, [], networks=networks)
    assert "the network mlops-stack-edge belongs to" in found


@pytest.mark.parametrize(("prefix", "refused"), [("", True), ("b-", True), ("a-", False)])
def test_data_does_not_follow_another_prefix(
    monkeypatch: pytest.MonkeyPatch, prefix: str, refused: bool
) -> None:
    volumes = [("a-mlflow-postgres-data", STACK), ("a-mlflow-postgres-auth-data", STACK)]
    found = _refused(monkeypatch, [], volumes=volumes, namePrefix=prefix)
    assert bool(found) == refused
    if refused:
        assert "in volumes whose names begin with 'a-': a-mlflow-postgres-auth-data, a-ml" in found[0]


@pytest.mark.parametrize(
    ("inside", "at", "bind", "refused"),
    [
        ("80/tcp", "127.0.0.1", "127.0.0.1", True),
        ("80/tcp", "0.0.0.0", "127.0.0.1", True),
        ("80/tcp", "", "127.0.0.1", True),
        ("80/tcp", "10.0.0.5", "0.0.0.0", True),
        ("80/tcp", "10.0.0.5", "127.0.0.1", False),
        ("80/udp", "127.0.0.1", "127.0.0.1", False),
    ],
)
def test_a_port_is_taken_where_it_is_needed(
    monkeypatch: pytest.MonkeyPatch, inside: str, at: str, bind: str, refused: bool
) -> None:
    holder = {
        **_container("web", "", stack=""),
        "State": {"Running": True},
        "HostConfig": {"PortBindings": {inside: [{"HostIp": at, "HostPort": "5000"}]}},
    }
    found = _refused(monkeypatch, [holder], bindAddress=bind)
    assert bool(found) == refused


KEYS = {"langfuseSalt": base64.b64encode(b"s" * 32).decode(), "langfuseEncryptionKey": "ab" * 32}


@pytest.mark.parametrize("key", KEYS)
@pytest.mark.parametrize(
    ("how", "same", "set_now", "refused"),
    [
        ("generated", True, True, False),
        ("generated", False, True, True),
        ("generated", False, False, False),
        ("given", True, True, False),
        ("given", False, True, True),
        ("given", True, False, True),
    ],
)
def test_a_key_without_which_data_is_of_no_use_stays(
    monkeypatch: pytest.MonkeyPatch, key: str, how: str, same: bool, set_now: bool, refused: bool
) -> None:
    web = _container("langfuse-web", "3.225.4")
    label = {"langfuseSalt": "salt", "langfuseEncryptionKey": "encryption-key"}[key]
    before = KEYS[key] if same else "another"
    web["Config"]["Labels"][f"{PROJECT}.{label}"] = f"{how}:{fingerprint(before)}"
    settings: dict[str, Any] = {key: KEYS[key]} if set_now else {}
    found = _refused(monkeypatch, [web], **settings)
    assert bool(found) == refused
    assert KEYS[key] not in "".join(found)


@pytest.mark.parametrize(
    ("endpoint", "settings", "refused"),
    [
        ("http://mlflow-minio:9000", {"mlflowBucket": "other"}, True),
        ("http://mlflow-minio:9000", {"mlflowBucket": "before"}, False),
        ("https://far", {"mlflowBucket": "other"}, False),
    ],
)
def test_artifacts_are_not_left_behind_in_another_bucket(
    monkeypatch: pytest.MonkeyPatch, endpoint: str, settings: dict[str, Any], refused: bool
) -> None:
    server = _container("mlflow-server", "3.4.0")
    server["Config"]["Env"] = [
        "MLFLOW_ARTIFACTS_DESTINATION=s3://before",
        f"MLFLOW_S3_ENDPOINT_URL={endpoint}",
    ]
    assert bool(_refused(monkeypatch, [server], **settings)) == refused
