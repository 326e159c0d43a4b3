"""Clients that write steadily, and know afterwards what was acknowledged to them and is not there."""

from __future__ import annotations

import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any, Protocol

import requests

from tests.conditions import PATIENCE_SECONDS, until
from tests.traces import one_span

# Longer than any answer may take: who waits longer than this was not answered.
_TIMEOUT_SECONDS = 120
_PAUSE_SECONDS = 0.05
AT_LEAST = 20

CAROL = {"name": "carol", "experiments": {"0": "READ"}}
"""A user who may read what is written."""


class Deployed(Protocol):
    """A stack that tells where it is and how to get in."""

    def outputs(self) -> dict[str, Any]: ...


@dataclass
class Writer(ABC):
    """`acknowledged`: what a client may rely on. `refused`: answered with an error. `unanswered`: cut off, or no answer in time.

    `slowest`: seconds of the longest answer, refusals included. `silence`: the longest between two acknowledgements.
    """

    url: str
    auth: tuple[str, str]
    acknowledged: list[str] = field(default_factory=list)
    refused: int = 0
    unanswered: int = 0
    slowest: float = 0.0
    silence: float = 0.0
    _last: float | None = None

    @abstractmethod
    def write(self, number: int) -> None:
        """Write something, and note what came of it."""

    @abstractmethod
    def lost(self) -> Sequence[str]:
        """What was acknowledged and is not there."""

    def call(self, method: str, path: str, **more: object) -> requests.Response:
        return requests.request(
            method,
            f"{self.url}/{path}",
            auth=self.auth,
            timeout=_TIMEOUT_SECONDS,
            **more,  # type: ignore[arg-type]
        )

    def note(self, name: str, method: str, path: str, **more: object) -> None:
        """Send, and remember under the name whether it was acknowledged."""
        began = time.monotonic()
        try:
            answer = self.call(method, path, **more)
        except requests.RequestException:
            self.unanswered += 1
            return
        finally:
            now = time.monotonic()
            self.slowest = max(self.slowest, now - began)
        if answer.ok:
            self.silence = max(self.silence, now - (self._last or now))
            self._last = now
            self.acknowledged.append(name)
        else:
            self.refused += 1

    def goes_on(self, what: str, seconds: float = PATIENCE_SECONDS) -> None:
        """Wait until twenty more are acknowledged."""
        before = len(self.acknowledged)
        until(lambda: len(self.acknowledged) >= before + AT_LEAST, what, seconds)

    def summary(self) -> str:
        counts = (
            f"{len(self.acknowledged)} acknowledged, {self.refused} refused, {self.unanswered} unanswered"
        )
        return f"{counts}, slowest answer {self.slowest:.1f} s"


@dataclass
class MlflowWriter(Writer):
    """Metrics and artifacts of one run."""

    run: str = ""
    kinds: Sequence[str] = ("metric", "artifact")

    @classmethod
    def of(cls, stack: Deployed, *kinds: str) -> MlflowWriter:
        """With a run of its own."""
        outputs = stack.outputs()
        writer = cls(outputs["mlflowUrl"], (outputs["mlflowAdminUsername"], outputs["mlflowAdminPassword"]))
        writer.kinds = kinds or writer.kinds
        made = writer.call("POST", "api/2.0/mlflow/runs/create", json={"experiment_id": "0", "start_time": 1})
        made.raise_for_status()
        writer.run = made.json()["run"]["info"]["run_id"]
        return writer

    def write(self, number: int) -> None:
        if "metric" in self.kinds:
            body = {"run_id": self.run, "key": "m", "value": number, "timestamp": number, "step": number}
            self.note(f"metric {number}", "POST", "api/2.0/mlflow/runs/log-metric", json=body)
        if "artifact" in self.kinds:
            self.note(f"artifact {number}", "PUT", self._artifact(number), data=f"{number}".encode())

    def lost(self) -> list[str]:
        query = {"run_id": self.run, "metric_key": "m", "max_results": 20000}
        history = self.call("GET", "api/2.0/mlflow/metrics/get-history", params=query)
        kept = {f"metric {metric.get('step', 0)}" for metric in history.json().get("metrics", ())}
        kept |= {
            name
            for name in self.acknowledged
            if name.startswith("artifact ")
            and self.call("GET", self._artifact(int(name.split()[1]))).text == name.split()[1]
        }
        return [name for name in self.acknowledged if name not in kept]

    def _artifact(self, number: int) -> str:
        return f"api/2.0/mlflow-artifacts/artifacts/0/{self.run}/artifacts/{number}.txt"


@dataclass
class TraceWriter(Writer):
    """Traces of one span each, to Langfuse."""

    @classmethod
    def of(cls, stack: Deployed) -> TraceWriter:
        outputs = stack.outputs()
        return cls(outputs["langfuseUrl"], (outputs["langfusePublicKey"], outputs["langfuseSecretKey"]))

    def write(self, number: int) -> None:
        trace, batch = one_span(str(number))
        self.note(trace, "POST", "api/public/otel/v1/traces", json=batch)

    def lost(self) -> list[str]:
        missing = list(self.acknowledged)

        def all_there() -> bool:
            missing[:] = [trace for trace in missing if not self.call("GET", f"api/public/traces/{trace}").ok]
            return not missing

        with suppress(AssertionError):
            until(all_there, "every acknowledged trace", seconds=120)
        return missing


def written(stack: Deployed) -> list[Writer]:
    """What wrote something of each kind to both products: acknowledged, and there."""
    writers: list[Writer] = [MlflowWriter.of(stack), TraceWriter.of(stack)]
    for writer in writers:
        writer.write(1)
        assert (writer.refused, writer.unanswered) == (0, 0)
        assert writer.lost() == []
    return writers


@contextmanager
def writing(writer: Writer) -> Iterator[None]:
    """Meanwhile the writer writes, one thing after another."""
    over = threading.Event()

    def go_on() -> None:
        number = 1
        while not over.wait(_PAUSE_SECONDS):
            writer.write(number)
            number += 1

    thread = threading.Thread(target=go_on)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()
