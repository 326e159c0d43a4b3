"""What the program refuses for the sake of the data that is there, told by the labels of the stack's containers."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from components import preflight
from components.problems import ProblemsError
from components.settings import PROJECT, load

STACK = f"{PROJECT}/dev"


def _container(service: str, version: str, stack: str = STACK) -> dict[str, Any]:
    labels = {"service": service, "version": version, "stack": stack}
    return {
        "Name": f"/{service}",
        "Config": {"Labels": {f"{PROJECT}.{key}": value for key, value in labels.items()}},
    }


def _refused(monkeypatch: pytest.MonkeyPatch, containers: list[dict[str, Any]], **settings: Any) -> list[str]:
    monkeypatch.setattr(preflight, "_containers", lambda: containers)
    monkeypatch.setattr(preflight, "_busy", lambda address, port: False)
    raw = {
        f"{PROJECT}:{key}": value if isinstance(value, str) else json.dumps(value)
        for key, value in settings.items()
    }
    loaded = load(raw)
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
        '#!/bin/sh\n[ "$1" = ps ] && echo here gone && exit\necho \'[{"Name": "/here"}]\'\nexit 1\n'
    )
    docker.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    assert preflight._containers() == [{"Name": "/here"}]
