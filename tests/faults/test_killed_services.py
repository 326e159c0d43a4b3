"""The main process of a service dies while clients write: it comes back by itself, and what was acknowledged is there."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import pytest
import requests

from tests.conditions import until
from tests.deployment import Deployment
from tests.integration.images.engine import docker

_AT_LEAST = 20


@dataclass
class Writer:
    """Writes metrics and artifacts, one after another, and remembers which were acknowledged."""

    url: str
    auth: tuple[str, str]
    run: dict[str, str] = field(default_factory=dict)
    metrics: list[int] = field(default_factory=list)
    artifacts: list[str] = field(default_factory=list)
    refused: int = 0

    def call(self, method: str, path: str, **more: object) -> requests.Response:
        return requests.request(method, f"{self.url}/api/2.0/{path}", auth=self.auth, timeout=30, **more)  # type: ignore[arg-type]

    def begin(self) -> None:
        made = self.call("POST", "mlflow/runs/create", json={"experiment_id": "0", "start_time": 1})
        made.raise_for_status()
        self.run = made.json()["run"]["info"]

    def write(self, step: int) -> None:
        """One metric and one artifact."""
        body = {"run_id": self.run["run_id"], "key": "m", "value": step, "timestamp": step, "step": step}
        name = f"0/{self.run['run_id']}/artifacts/{step}.txt"
        try:
            if self.call("POST", "mlflow/runs/log-metric", json=body).ok:
                self.metrics.append(step)
            else:
                self.refused += 1
            if self.call("PUT", f"mlflow-artifacts/artifacts/{name}", data=f"{step}".encode()).ok:
                self.artifacts.append(name)
            else:
                self.refused += 1
        except requests.RequestException:
            self.refused += 1

    def lost(self) -> list[object]:
        """What was acknowledged and is not there."""
        query = {"run_id": self.run["run_id"], "metric_key": "m", "max_results": 20000}
        kept = self.call("GET", "mlflow/metrics/get-history", params=query).json()["metrics"]
        steps = {int(metric.get("step", 0)) for metric in kept}
        gone: list[object] = [step for step in self.metrics if step not in steps]
        return gone + [
            name for name in self.artifacts if not self.call("GET", f"mlflow-artifacts/artifacts/{name}").ok
        ]


@contextmanager
def _writing(writer: Writer) -> Iterator[None]:
    over = threading.Event()

    def go_on() -> None:
        step = 1
        while not over.is_set():
            writer.write(step)
            step += 1

    thread = threading.Thread(target=go_on)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


@pytest.fixture(scope="module")
def up(empty: Deployment) -> Deployment:
    empty.up().ok()
    return empty


@pytest.mark.parametrize(
    "service", ["mlflow-server", "mlflow-postgres", "mlflow-postgres-auth", "mlflow-minio"]
)
def test_nothing_acknowledged_is_lost_when_it_dies(up: Deployment, service: str) -> None:
    outputs = up.outputs()
    writer = Writer(outputs["mlflowUrl"], ("admin", outputs["mlflowAdminPassword"]))
    writer.begin()
    with _writing(writer):
        until(lambda: len(writer.artifacts) >= _AT_LEAST, "writes before")
        restarts = up.inspect(service)["RestartCount"]
        os.kill(up.inspect(service)["State"]["Pid"], signal.SIGKILL)
        died = time.monotonic()
        until(lambda: up.inspect(service)["RestartCount"] > restarts, "the restart")
        before = len(writer.artifacts)
        until(lambda: len(writer.artifacts) >= before + _AT_LEAST, "writes after", seconds=120)
        back = time.monotonic() - died
        until(lambda: up.inspect(service)["State"]["Health"]["Status"] == "healthy", "healthy again", 120)
    print(
        f"{service}: {_AT_LEAST} writes again {back:.1f} s after the kill; "
        f"{len(writer.metrics)} metrics and {len(writer.artifacts)} artifacts acknowledged, {writer.refused} refused"
    )
    assert writer.lost() == []


def test_a_store_that_is_away_refuses_and_then_takes_again(up: Deployment) -> None:
    outputs = up.outputs()
    writer = Writer(outputs["mlflowUrl"], ("admin", outputs["mlflowAdminPassword"]))
    writer.begin()
    for service, acknowledged in (("mlflow-postgres", writer.metrics), ("mlflow-minio", writer.artifacts)):
        docker("stop", up.container(service))
        try:
            before = len(acknowledged)
            writer.write(before + 1000)
            assert len(acknowledged) == before, f"written without {service}"
        finally:
            docker("start", up.container(service))

        def takes_again(before: int = before, acknowledged: list[int] | list[str] = acknowledged) -> bool:
            writer.write(before + 2000)
            return len(acknowledged) > before

        until(takes_again, f"a write after {service} is back", seconds=120)
    assert writer.lost() == []
