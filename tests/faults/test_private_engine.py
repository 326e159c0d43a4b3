"""The engine itself ends, or the disk of a store is full, while clients write. On an engine of the tests' own."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager

import pytest

from airgap.images import ensure
from scripts.bootstrap import power
from scripts.bootstrap.stack import Stack
from scripts.machine.processes import say
from tests.conditions import until
from tests.deployment import RUNNING, Deployment, deployment
from tests.faults.private_engine import PrivateEngine, SmallDisk, missing, private_engine, small_disk
from tests.faults.writers import AT_LEAST, MlflowWriter, writing
from tests.integration.mlflow_image.stack import build

pytestmark = [pytest.mark.thorough, pytest.mark.skipif(bool(missing()), reason=missing())]

_RUNNING = RUNNING["mlflow"]
# Docker waits longer after each failed start, up to a minute.
_BACK_SECONDS = 180


@pytest.fixture(scope="module")
def images() -> dict[str, str]:
    images = ensure(["python", "postgres", "minio", "mc"])
    # This engine reaches no package index, so MLflow's image comes from the machine's as well.
    return {**images, "mlflow": build("3.4.0", images.pop("python"))}


@pytest.fixture(scope="module")
def engine(images: dict[str, str]) -> Iterator[PrivateEngine]:
    with private_engine(images.values()) as made:
        yield made


@pytest.fixture(scope="module")
def disks(engine: PrivateEngine) -> Iterator[Mapping[str, SmallDisk]]:
    with ExitStack() as open_disks:
        yield {
            store: open_disks.enter_context(small_disk(engine.folder / store))
            for store in ("mlflow-postgres", "mlflow-minio")
        }


@pytest.fixture(scope="module")
def empty(
    tmp_path_factory: pytest.TempPathFactory,
    environment: Mapping[str, str],
    engine: PrivateEngine,
    images: dict[str, str],
    disks: Mapping[str, SmallDisk],
) -> Iterator[Deployment]:
    """MLflow's half; two of its volumes were made by hand before, each on a disk of its own."""
    settings = {"images": images, "bindAddress": engine.address, "langfuseEnabled": False}
    folder = tmp_path_factory.mktemp("deployment")
    with deployment(folder, {**environment, "DOCKER_HOST": engine.host}, **settings) as made:
        for store, disk in disks.items():
            options = ("--opt", "type=ext4", "--opt", f"device={disk.device}")
            made.docker("volume", "create", *options, f"{made.prefix}{store}-data")
        yield made


@pytest.fixture(scope="module", autouse=True)
def _up(empty: Deployment) -> None:
    empty.up().ok()


def _away(
    stack: Deployment, engine: PrivateEngine, end: Callable[[], None], again: Callable[[], None]
) -> str:
    """The engine ends while a client writes, and starts again; what was measured."""
    started = {service: stack.inspect(service)["State"]["StartedAt"] for service in _RUNNING}

    def all_new() -> bool:
        states = {service: stack.inspect(service)["State"] for service in _RUNNING}
        return all(
            state["StartedAt"] != started[service] and state["Health"]["Status"] == "healthy"
            for service, state in states.items()
        )

    writer = MlflowWriter.of(stack)
    with writing(writer):
        writer.goes_on("writes before")
        end()
        ended = time.monotonic()
        engine.start()
        again()
        until(all_new, "all started anew and healthy", _BACK_SECONDS)
        healthy = time.monotonic() - ended
        writer.goes_on("writes after", _BACK_SECONDS)
    assert writer.lost() == []
    stack.up("--refresh", "--expect-no-changes").ok()
    return f"all healthy {healthy:.1f} s after the engine's new start; {writer.summary()}"


def test_after_the_engine_was_restarted_all_comes_back_by_itself(
    empty: Deployment, engine: PrivateEngine
) -> None:
    measured = _away(empty, engine, lambda: engine.end(signal.SIGTERM), lambda: None)
    print(f"engine ended in order: {measured}")


def test_after_the_machine_crashed_all_comes_back_by_itself(empty: Deployment, engine: PrivateEngine) -> None:
    print(f"engine and containers killed: {_away(empty, engine, engine.crash, lambda: None)}")


def test_what_outlived_a_killed_engine_is_stopped_by_the_next_one_and_make_start_brings_it_back(
    empty: Deployment, engine: PrivateEngine, stack: Stack
) -> None:
    def make_start() -> None:
        states = {service: empty.inspect(service)["State"]["Status"] for service in _RUNNING}
        assert set(states.values()) == {"exited"}, f"make start is not needed: {states}"
        power.start(stack, say)

    measured = _away(empty, engine, lambda: engine.end(signal.SIGKILL), make_start)
    print(f"engine killed, then make start: {measured}")


@contextmanager
def _full(disk: SmallDisk, writer: MlflowWriter) -> Iterator[None]:
    """Meanwhile the disk is full, and what is written is refused."""
    writer.goes_on("writes before")
    disk.fill()
    try:
        # What fits into blocks that the store has already is still taken.
        until(lambda: writer.refused >= AT_LEAST, "refusals")
        acknowledged = len(writer.acknowledged)
        until(lambda: writer.refused >= 2 * AT_LEAST, "more refusals")
        assert len(writer.acknowledged) == acknowledged, "acknowledged on a full disk"
        yield
    finally:
        disk.free()


def _goes_on(stack: Deployment, writer: MlflowWriter, what: str) -> None:
    freed = time.monotonic()
    writer.goes_on("writes after", _BACK_SECONDS)
    written = time.monotonic() - freed
    until(lambda: stack.healthy(*_RUNNING), "all healthy", _BACK_SECONDS)
    healthy = time.monotonic() - freed
    print(
        f"{what}: {AT_LEAST} writes {written:.1f} s after it was freed, all healthy after {healthy:.1f} s; "
        f"{writer.summary()}"
    )


@pytest.mark.parametrize(
    ("store", "kind", "reason"),
    [
        ("mlflow-postgres", "metric", "No space left on device"),
        ("mlflow-minio", "artifact", "drive path full"),
    ],
)
def test_what_does_not_fit_on_the_disk_is_refused_until_it_is_freed(
    empty: Deployment, disks: Mapping[str, SmallDisk], store: str, kind: str, reason: str
) -> None:
    writer = MlflowWriter.of(empty, kind)
    restarts = empty.inspect(store)["RestartCount"]
    with writing(writer):
        with _full(disks[store], writer):
            assert empty.healthy(store)
            assert writer.lost() == [], "what is there cannot be read"
            assert reason in empty.docker("logs", empty.container(store)).stderr
        _goes_on(empty, writer, f"{store}'s disk full")
    assert writer.lost() == []
    assert empty.inspect(store)["RestartCount"] == restarts


def test_a_database_whose_log_does_not_fit_on_the_disk_starts_once_it_is_freed(
    empty: Deployment, disks: Mapping[str, SmallDisk]
) -> None:
    store = "mlflow-postgres"
    restarts = empty.inspect(store)["RestartCount"]
    switch = ("exec", empty.container(store), "psql", "-U", "mlflow", "-c", "SELECT pg_switch_wal()")

    def gave_up() -> bool:
        """Each switch takes a new file of the write-ahead log, until there is none to be had."""
        empty.docker(*switch, check=False)
        return empty.inspect(store)["RestartCount"] > restarts

    writer = MlflowWriter.of(empty, "metric")
    with writing(writer):
        with _full(disks[store], writer):
            until(gave_up, "the end of the database server")
            until(lambda: empty.inspect(store)["RestartCount"] > restarts + 5, "vain starts")
            assert not empty.healthy(store)
        _goes_on(empty, writer, f"{store}'s log on a full disk")
    assert "PANIC:  could not write to file" in empty.docker("logs", empty.container(store)).stderr
    assert writer.lost() == []
