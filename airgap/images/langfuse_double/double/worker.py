"""The worker: takes jobs from Redis, reads their events from S3 and writes them to ClickHouse."""

from __future__ import annotations

import logging
import threading
from collections import defaultdict
from collections.abc import Iterable
from typing import Any

import redis

from . import events, otel, queue
from .clickhouse import ClickHouse
from .events import Row
from .objects import ObjectStore
from .problems import StoreProblem
from .settings import Settings

_log = logging.getLogger("worker")
_LONGEST_PAUSE = 5.0
_WAIT_SECONDS = 0.5  # and so long may a stop take


class Worker:
    """One thread for each queue, until stopped. A store that is away delays jobs and loses none."""

    def __init__(self, settings: Settings) -> None:
        self._clickhouse = ClickHouse(settings)
        self._objects = ObjectStore(settings.events)
        self._redis: redis.Redis = queue.connect(
            settings.redis_host, settings.redis_port, settings.redis_auth
        )
        self._stopping = threading.Event()
        # Reading a document, merging and writing it back is one step.
        self._writing = threading.Lock()
        self._threads = [
            threading.Thread(target=self._serve, args=(queue.Queue(self._redis, name),), name=name)
            for name in queue.QUEUES
        ]

    def start(self) -> None:
        """Begin to take jobs."""
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        """Finish the jobs at hand and end."""
        self._stopping.set()
        for thread in self._threads:
            thread.join()

    def ping_redis(self) -> None:
        """Raise unless Redis answers."""
        self._redis.ping()

    def _serve(self, jobs: queue.Queue) -> None:
        pause = 0.0
        while not self._stopping.wait(pause):
            try:
                if back := jobs.recover():
                    _log.warning("%s: took up %d job(s) of a worker that is gone", jobs.name, back)
                if taken := jobs.take(_WAIT_SECONDS):
                    self._work(jobs, *taken)
                pause = 0.0
            except StoreProblem as problem:
                pause = min(_LONGEST_PAUSE, pause * 2 or 0.25)
                _log.warning("%s: %s; trying again in %.1f s", jobs.name, problem, pause)
            except Exception:
                pause = _LONGEST_PAUSE
                _log.exception("%s: unexpected", jobs.name)

    def _work(self, jobs: queue.Queue, job: str, data: dict[str, Any]) -> None:
        try:
            self._store(jobs.name, data)
        except StoreProblem:
            jobs.back(job)
            raise
        except (LookupError, TypeError, ValueError, AttributeError) as error:
            _log.error("%s: job %s set aside: %s: %s", jobs.name, job, type(error).__name__, error)
            jobs.fail(job, str(error))
        else:
            jobs.done(job)

    def _store(self, name: str, data: dict[str, Any]) -> None:
        project = data["projectId"]
        if name == queue.TRACE_DELETE:
            self._clickhouse.delete_trace(project, data["traceId"])
            return
        content = self._objects.get_json(data["key"])
        rows = otel.rows(content) if name == queue.OTEL else map(events.row, content)
        self._write(project, rows)

    def _write(self, project: str, rows: Iterable[tuple[str, Row]]) -> None:
        documents: dict[str, dict[str, Row]] = defaultdict(dict)
        for table, row in rows:
            earlier = documents[table].get(row["id"])
            documents[table][row["id"]] = _over(earlier["body"], row) if earlier else row
        with self._writing:
            for table, new in documents.items():
                old = {body["id"]: body for body in self._clickhouse.find(table, project, ids=new)}
                self._clickhouse.upsert(
                    table,
                    project,
                    [dict(_over(old[key], row) if key in old else row) for key, row in new.items()],
                )


def _over(old: dict[str, Any], row: Row) -> Row:
    body = events.merged(old, row["body"])
    start = body.get("timestamp") or body.get("startTime")
    return {
        "id": row["id"],
        "trace_id": body.get("traceId") or row["trace_id"],
        "time_us": events.micros(start) if start else row["time_us"],
        "body": body,
    }
