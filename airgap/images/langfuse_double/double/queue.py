"""Jobs in Redis under BullMQ's names: bull:<queue>:wait, :active, :failed and one hash for each job.

A job stays in `active` until it is done, so a worker that dies loses none: without its lock the job is put
back. What is done twice ends as if done once, so that is safe.
"""

from __future__ import annotations

import json
import time
from typing import Any

import redis

from .problems import store

OTEL = "otel-ingestion-queue"
INGESTION = "ingestion-queue"
TRACE_DELETE = "trace-delete"
QUEUES = (OTEL, INGESTION, TRACE_DELETE)
_LOCK_SECONDS = 30


def connect(host: str, port: int, password: str | None) -> redis.Redis:
    """A client whose calls end in time; the connection is made at the first call."""
    return redis.Redis(
        host=host,
        port=port,
        password=password,
        decode_responses=True,
        socket_connect_timeout=3,
        socket_timeout=5,
    )


class Queue:
    """One queue."""

    def __init__(self, client: redis.Redis, name: str) -> None:
        self._client: Any = client
        self._keys = f"bull:{name}"
        self.name = name

    def add(self, data: dict[str, Any]) -> None:
        """Queue a job; when this returns, Redis has it."""
        with store("redis", redis.RedisError):
            job = str(self._client.incr(f"{self._keys}:id"))
            fields = {"name": self.name, "data": json.dumps(data), "timestamp": int(time.time() * 1000)}
            with self._client.pipeline(transaction=True) as together:
                together.hset(f"{self._keys}:{job}", mapping=fields)
                together.lpush(f"{self._keys}:wait", job)
                together.execute()

    def take(self, seconds: float) -> tuple[str, dict[str, Any]] | None:
        """The next job, or nothing after so many seconds; call done, back or fail with its id."""
        with store("redis", redis.RedisError):
            job = self._client.blmove(f"{self._keys}:wait", f"{self._keys}:active", seconds, "RIGHT", "LEFT")
            if job is None:
                return None
            self._client.set(f"{self._keys}:{job}:lock", "1", ex=_LOCK_SECONDS)
            data = self._client.hget(f"{self._keys}:{job}", "data")
            return job, json.loads(data or "{}")

    def done(self, job: str) -> None:
        """Forget a job whose work is stored."""
        with store("redis", redis.RedisError), self._client.pipeline(transaction=True) as together:
            together.lrem(f"{self._keys}:active", 0, job)
            together.delete(f"{self._keys}:{job}", f"{self._keys}:{job}:lock")
            together.execute()

    def back(self, job: str) -> None:
        """Put a job back to be the next one: a store was away."""
        with store("redis", redis.RedisError), self._client.pipeline(transaction=True) as together:
            together.lrem(f"{self._keys}:active", 0, job)
            together.rpush(f"{self._keys}:wait", job)
            together.delete(f"{self._keys}:{job}:lock")
            together.execute()

    def fail(self, job: str, reason: str) -> None:
        """Set aside a job that no repetition can mend."""
        with store("redis", redis.RedisError), self._client.pipeline(transaction=True) as together:
            together.lrem(f"{self._keys}:active", 0, job)
            together.hset(f"{self._keys}:{job}", "failedReason", reason)
            together.zadd(f"{self._keys}:failed", {job: time.time()})
            together.execute()

    def recover(self) -> int:
        """Put back what a dead worker held: jobs in `active` whose lock ran out."""
        with store("redis", redis.RedisError):
            held = self._client.lrange(f"{self._keys}:active", 0, -1)
            stalled = [job for job in held if not self._client.exists(f"{self._keys}:{job}:lock")]
        for job in stalled:
            self.back(job)
        return len(stalled)
