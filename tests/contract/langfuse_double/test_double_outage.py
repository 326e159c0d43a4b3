"""A store goes away and comes back: whatever was acknowledged is there in the end."""

from __future__ import annotations

import pytest

from tests.conditions import until
from tests.contract.langfuse_double.stack import Stack
from tests.traces import one_span


def send(stack: Stack) -> tuple[str, int]:
    """A one-span trace: its id, and the status it was answered with."""
    trace, batch = one_span("")
    answer = stack.call("POST", "otel/v1/traces", json=batch)
    return trace, answer.status_code


@pytest.mark.parametrize(
    ("store", "status"), [("postgres", 503), ("s3", 503), ("redis", 503), ("clickhouse", 200)]
)
def test_nothing_acknowledged_is_lost(stack: Stack, store: str, status: int) -> None:
    sent = [send(stack) for _ in range(3)]
    assert {answered for _, answered in sent} == {200}
    stack.stores[store].stop()
    try:
        during = send(stack)
        assert during[1] == status
        health = stack.call("GET", "health?failIfDatabaseUnavailable=true", auth=None)
        assert health.status_code == (503 if store == "postgres" else 200)
    finally:
        stack.stores[store].start()
        stack.wait_for_store(store)
    for trace, answered in [*sent, during, send(stack)]:
        if answered == 200:
            assert stack.trace(trace)["id"] == trace


def test_the_jobs_of_a_dead_worker_are_taken_up(stack: Stack) -> None:
    queue = "bull:otel-ingestion-queue"
    stack.worker.stop()
    try:
        trace, status = send(stack)
        assert status == 200
        assert stack.redis("LLEN", f"{queue}:wait") == "1"
        # As it lies in Redis when a worker dies with the job in hand and its lock has run out.
        stack.redis("LMOVE", f"{queue}:wait", f"{queue}:active", "RIGHT", "LEFT")
    finally:
        stack.worker.start()
        stack.wait_for_worker()
    assert stack.trace(trace)["id"] == trace
    until(lambda: stack.redis("EXISTS", f"{queue}:active", f"{queue}:wait") == "0", "an empty queue")


def test_what_cannot_be_done_is_set_aside(stack: Stack) -> None:
    queue = "bull:otel-ingestion-queue"
    stack.redis("HSET", f"{queue}:poison", "data", '{"projectId": "project", "key": "events/gone.json"}')
    stack.redis("LPUSH", f"{queue}:wait", "poison")
    until(lambda: stack.redis("ZCARD", f"{queue}:failed") == "1", "the failed job")
    trace, _ = send(stack)
    assert stack.trace(trace)["id"] == trace, "the queue goes on"
    stack.redis("DEL", f"{queue}:failed", f"{queue}:poison")
