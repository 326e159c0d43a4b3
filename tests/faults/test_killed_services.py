"""A service dies, or a store is away, while clients write: it comes back by itself, and what was acknowledged is there."""

from __future__ import annotations

import os
import random
import signal
import time
from collections.abc import Iterator, Mapping

import pytest

from airgap.images import RECIPES, ensure
from tests.conditions import until
from tests.deployment import RUNNING, Deployment, deployment
from tests.engine import docker
from tests.faults.writers import MlflowWriter, TraceWriter, Writer, writing

# Sorted, as chance chooses among them by their place.
_ALL = [*sorted(RUNNING["mlflow"]), *sorted(RUNNING["langfuse"])]
_ALL_STORES = [name for name in _ALL if name not in ("mlflow-server", "langfuse-web", "langfuse-worker")]


@pytest.fixture(scope="module")
def up(tmp_path_factory: pytest.TempPathFactory, environment: Mapping[str, str]) -> Iterator[Deployment]:
    """Both products; in Langfuse's place its contract double."""
    with deployment(tmp_path_factory.mktemp("deployment"), environment, images=ensure(RECIPES)) as made:
        made.up().ok()
        yield made


def _writer(stack: Deployment, service: str) -> Writer:
    if service.startswith("langfuse-"):
        return TraceWriter.of(stack)
    # One kind, where only one of them needs the store.
    kinds = {"mlflow-postgres": ("metric",), "mlflow-minio": ("artifact",)}
    return MlflowWriter.of(stack, *kinds.get(service, ()))


def _all_healthy(stack: Deployment) -> bool:
    return stack.healthy(*_ALL)


def _killed(stack: Deployment, service: str) -> None:
    writer = _writer(stack, service)
    with writing(writer):
        writer.goes_on("writes before")
        running = stack.inspect(service)
        os.kill(running["State"]["Pid"], signal.SIGKILL)
        died = time.monotonic()
        until(lambda: stack.inspect(service)["RestartCount"] > running["RestartCount"], "the restart")
        until(lambda: stack.healthy(service), "healthy again", seconds=120)
        healthy = time.monotonic() - died
        writer.goes_on("writes after", seconds=120)
    print(
        f"{service} killed: nothing acknowledged for {writer.silence:.1f} s, healthy after {healthy:.1f} s; {writer.summary()}"
    )
    assert writer.lost() == []
    until(lambda: _all_healthy(stack), "all healthy", seconds=120)


def test_nothing_acknowledged_is_lost_when_mlflows_server_dies(up: Deployment) -> None:
    _killed(up, "mlflow-server")


def test_nothing_acknowledged_is_lost_when_any_service_dies(up: Deployment, chance: random.Random) -> None:
    _killed(up, chance.choice(_ALL))


@pytest.mark.thorough
@pytest.mark.parametrize("service", _ALL)
def test_nothing_acknowledged_is_lost_when_it_dies(up: Deployment, service: str) -> None:
    _killed(up, service)


def _away(stack: Deployment, service: str, seconds: float) -> None:
    writer = _writer(stack, service)
    with writing(writer):
        writer.goes_on("writes before")
        docker("stop", stack.container(service))
        try:
            before, refused = len(writer.acknowledged), writer.refused
            time.sleep(seconds)  # not a condition: the store is away for as long as was asked for
            meanwhile = f"{len(writer.acknowledged) - before} acknowledged and {writer.refused - refused} refused meanwhile"
        finally:
            docker("start", stack.container(service))
        back = time.monotonic()
        after = len(writer.acknowledged)
        until(lambda: len(writer.acknowledged) > after, "a write after", seconds=120)
        took = time.monotonic() - back
        writer.goes_on("writes after", seconds=120)
    print(
        f"{service} away for {seconds:.0f} s: {meanwhile}; acknowledged again {took:.1f} s after its start; {writer.summary()}"
    )
    assert writer.lost() == []
    assert writer.unanswered == 0, "who is refused is told so, in time"
    until(lambda: _all_healthy(stack), "all healthy", seconds=120)


def test_nothing_acknowledged_is_lost_while_any_store_is_away(
    up: Deployment, chance: random.Random, request: pytest.FixtureRequest
) -> None:
    _away(up, chance.choice(_ALL_STORES), request.config.getoption("--away"))


@pytest.mark.thorough
@pytest.mark.parametrize("service", _ALL_STORES)
def test_nothing_acknowledged_is_lost_while_it_is_away(
    up: Deployment, service: str, request: pytest.FixtureRequest
) -> None:
    _away(up, service, request.config.getoption("--away"))


@pytest.mark.thorough
def test_an_artifact_store_that_hangs_is_given_up(up: Deployment) -> None:
    writer = MlflowWriter.of(up, "artifact")
    docker("pause", up.container("mlflow-minio"))
    try:
        writer.write(1)
    finally:
        docker("unpause", up.container("mlflow-minio"))
    print(f"mlflow-minio hangs: {writer.summary()}")
    assert (writer.refused, writer.unanswered) == (1, 0)
    until(lambda: _all_healthy(up), "all healthy", seconds=120)


@pytest.mark.parametrize(("service", "kind"), [("mlflow-postgres", "metric"), ("mlflow-minio", "artifact")])
def test_what_a_store_that_is_away_should_keep_is_refused(up: Deployment, service: str, kind: str) -> None:
    writer = MlflowWriter.of(up, kind)
    docker("stop", up.container(service))
    try:
        writer.write(1)
        assert writer.acknowledged == []
    finally:
        docker("start", up.container(service))
    until(lambda: _all_healthy(up), "all healthy", seconds=120)
