"""Stopping a deployed stack's containers, and starting them again, in the order of their dependencies."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager

from scripts.bootstrap import engine, leftovers
from scripts.bootstrap.leftovers import Found
from scripts.bootstrap.stack import Stack
from scripts.machine.problems import Problem
from scripts.machine.processes import Say

# What all others are stores for.
_SERVERS = ("mlflow-server", "langfuse-web", "langfuse-worker")
_STOP_SECONDS = 60
_HEALTHY_SECONDS = 900
_POLL_SECONDS = 0.5


def stop(stack: Stack, say: Say) -> None:
    """Stop servers, then stores; everything stays on the engine."""
    for tier in reversed(_tiers(stack)):
        stop_these(tier, say)
    say(f"Stopped; {stack.make('start')} starts it again")


def stop_servers(stack: Stack, say: Say) -> None:
    """Stop what writes into the stores."""
    stop_these(_tiers(stack)[1], say)


@contextmanager
def resting(items: Sequence[Found], stack: Stack, say: Say) -> Iterator[None]:
    """Meanwhile these are stopped: one after the other, and started again from the last to the first, as far as they ran."""
    ran = [item for item in items if item.status == "running"]
    try:
        for item in ran:
            stop_these([item], say)
        yield
    finally:
        if (
            ran
        ):  # a stop whose `docker` was interrupted goes on, and what is not stopped yet cannot be started
            _stop(ran)
        for item in reversed(ran):
            _start([item], say)
            _wait(stack, {item.id})


def start(stack: Stack, say: Say) -> None:
    """Start stores, then servers, each once the ones before it are healthy."""
    for tier in _tiers(stack):
        leftovers.unpause(tier, say)
        _start([item for item in tier if item.status not in ("running", "paused")], say)
        _wait(stack, {item.id for item in tier})
    say(f"Started; {stack.make('status')} looks closer")


def stop_these(items: Iterable[Found], say: Say) -> None:
    """Stop those of them that run, at the same time."""
    if running := [item for item in items if item.status in ("running", "restarting", "paused")]:
        say(f"Stopping {_names(running)}")
        _stop(running)


def _stop(items: Iterable[Found]) -> None:
    engine.docker("stop", "--time", str(_STOP_SECONDS), *(item.id for item in items))


def _start(stopped: Sequence[Found], say: Say) -> None:
    if stopped:
        say(f"Starting {_names(stopped)}")
        engine.docker("start", *(item.id for item in stopped))


def _tiers(stack: Stack) -> list[list[Found]]:
    services = [item for item in leftovers.containers(stack) if not item.run_once]
    if not services:
        raise Problem(f"the stack {stack.name} has no containers", stack.make("up"))
    stores = [item for item in services if item.service not in _SERVERS]
    return [stores, [item for item in services if item.service in _SERVERS]]


def _wait(stack: Stack, ids: set[str]) -> None:
    deadline = time.monotonic() + _HEALTHY_SECONDS
    while True:
        tier = [item for item in leftovers.containers(stack) if item.id in ids]
        if ended := [item for item in tier if item.status in ("exited", "dead")]:
            raise Problem(f"{_names(ended)} ended again", f"docker logs {ended[0].name}")
        waiting = [item for item in tier if item.health not in ("", "healthy") or item.status != "running"]
        if not waiting:
            return
        if time.monotonic() > deadline:
            raise Problem(f"{_names(waiting)} did not become healthy", f"docker logs {waiting[0].name}")
        time.sleep(_POLL_SECONDS)


def _names(items: Iterable[Found]) -> str:
    return ", ".join(sorted(item.name for item in items))
