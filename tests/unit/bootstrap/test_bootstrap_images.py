"""When images are built here, which, and what is written into the stack's settings."""

from __future__ import annotations

import http.server
import json
import sys
import threading
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, cast

import pytest

from scripts.bootstrap import images
from scripts.bootstrap.stack import Stack
from scripts.machine.problems import Problem
from tests.unit.bootstrap.conftest import Program

OFFICIAL = {name: f"official/{name}:1" for name in images._MLFLOW + images._LANGFUSE}
BUILT = {name: f"mlops-stack-airgap/{name}:1" for name in OFFICIAL}
MLFLOW, LANGFUSE = (
    {"python", "postgres", "minio", "mc"},
    {"redis", "clickhouse", "langfuse-web", "langfuse-worker"},
)


class Settings:
    """A stack's settings in memory."""

    config_file = Path("Pulumi.dev.yaml")

    def __init__(self) -> None:
        self.own: dict[str, Any] = {}

    def config(self) -> dict[str, Any]:
        defaults = {"images": {}, "langfuseEnabled": "true", "mlflowEnabled": "true", "langfuseVersion": "3"}
        return defaults | self.own

    def sets(self, key: str) -> bool:
        return key in self.own

    def set_config(self, path: str, value: str) -> None:
        key, _, rest = path.partition("[")
        if rest:
            self.own[key] = {**self.own.get(key, {}), json.loads(rest.removesuffix("]")): value}
        else:
            self.own[key] = value

    def make(self, target: str, *arguments: str) -> str:
        return Stack().make(target, *arguments)

    @property
    def built(self) -> set[str]:
        return {name for name, reference in self.own.get("images", {}).items() if reference == BUILT[name]}


@pytest.fixture
def settings() -> Settings:
    return Settings()


@pytest.fixture
def registry(monkeypatch: pytest.MonkeyPatch) -> list[bool]:
    """Whether a registry answers; asked only when it has to be."""
    answers: list[bool] = []
    monkeypatch.setattr(images, "_registry_answers", lambda mirror: answers.pop())
    return answers


@pytest.fixture
def prepare(
    settings: Settings, docker: Program, said: list[str], monkeypatch: pytest.MonkeyPatch
) -> Callable[..., None]:
    def build(names: Iterable[str], say: Any) -> dict[str, str]:
        return {name: BUILT[name] for name in names}

    monkeypatch.setattr(images.airgap, "ensure", build)
    monkeypatch.setattr(images, "_references", lambda python, config: OFFICIAL)
    docker.answers("image inspect", code=1)

    def call(*, double: bool = False, loaded: Iterable[str] = ()) -> None:
        for name in loaded:
            docker.answers(f"image inspect --format {{{{.Id}}}} {OFFICIAL[name]}", "sha256:1")
        images.prepare(cast(Stack, settings), Path("python"), said.append, double=double)

    return call


def test_where_a_registry_answers_nothing_is_built(
    settings: Settings, registry: list[bool], prepare: Callable[..., None]
) -> None:
    registry.append(True)
    prepare()
    assert settings.own == {}


def test_without_a_registry_mlflow_is_built_and_langfuse_is_left_out_and_said_so(
    settings: Settings, registry: list[bool], prepare: Callable[..., None], said: list[str]
) -> None:
    registry.append(False)
    prepare()
    assert settings.built == MLFLOW
    assert settings.own["langfuseEnabled"] == "false"
    assert "--langfuse-double" in said[-1]
    assert "docker load" in said[-1]
    # And from then on nobody has to be asked: the list of answers is empty.
    prepare()
    assert settings.built == MLFLOW


def test_the_double_comes_only_by_its_name_and_under_its_name(
    settings: Settings, registry: list[bool], prepare: Callable[..., None], said: list[str]
) -> None:
    registry.append(False)
    prepare()
    registry.append(False)
    prepare(double=True)
    assert settings.built == MLFLOW | LANGFUSE
    assert settings.own["langfuseEnabled"] == "true"
    assert any("NOT Langfuse" in line for line in said)


def test_loaded_langfuse_images_are_used(
    settings: Settings, registry: list[bool], prepare: Callable[..., None]
) -> None:
    registry.append(False)
    prepare(loaded=["langfuse-web", "langfuse-worker", "clickhouse"])
    assert settings.built == MLFLOW | {"redis"}
    assert "langfuseEnabled" not in settings.own


def test_langfuse_without_an_official_clickhouse_is_not_langfuse(
    settings: Settings, registry: list[bool], prepare: Callable[..., None], said: list[str]
) -> None:
    registry.append(False)
    prepare(loaded=["langfuse-web", "langfuse-worker"])
    assert settings.own["langfuseEnabled"] == "false"
    assert OFFICIAL["clickhouse"] in said[-1]


def test_what_a_person_set_stays(
    settings: Settings, registry: list[bool], prepare: Callable[..., None]
) -> None:
    settings.own = {"images": {"postgres": "registry.example.com/postgres:16"}, "langfuseEnabled": "false"}
    registry.append(False)
    prepare()
    assert settings.own["images"]["postgres"] == "registry.example.com/postgres:16"
    assert settings.built == MLFLOW - {"postgres"}


def test_langfuse_that_a_person_switched_on_is_not_switched_off(
    settings: Settings, registry: list[bool], prepare: Callable[..., None]
) -> None:
    settings.own = {"langfuseEnabled": "true"}
    registry.append(False)
    with pytest.raises(Problem, match="switched on"):
        prepare()
    assert settings.own == {"langfuseEnabled": "true"}


class _Registry(http.server.BaseHTTPRequestHandler):
    status = 401

    def do_GET(self) -> None:
        self.send_response(self.status)
        self.end_headers()

    def log_message(self, format: str, *arguments: Any) -> None:
        pass


@pytest.fixture
def address() -> Iterator[str]:
    with http.server.HTTPServer(("127.0.0.1", 0), _Registry) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield f"127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


@pytest.mark.parametrize(("status", "answers"), [(200, True), (401, True), (403, False), (502, False)])
def test_what_counts_as_a_registry(
    address: str, monkeypatch: pytest.MonkeyPatch, status: int, answers: bool
) -> None:
    monkeypatch.setattr(_Registry, "status", status)
    assert images._registry_answers(f"{address}/a/path") is answers


def test_references_come_from_the_components_table() -> None:
    found = images._references(
        Path(sys.executable),
        {"images": {"redis": "mine:1"}, "registryMirror": "mirror.example.com", "langfuseVersion": "3.1.2"},
    )
    assert found["redis"] == "mine:1"
    assert found["langfuse-web"] == "mirror.example.com/langfuse/langfuse:3.1.2"
    assert set(found) == set(OFFICIAL)
