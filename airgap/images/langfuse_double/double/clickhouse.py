"""Traces, observations and scores in ClickHouse, over HTTP, in SQL of any server since 18.16."""

from __future__ import annotations

import json
import socket
import time
from collections.abc import Iterable
from typing import Any
from urllib.parse import urlencode, urlsplit

import urllib3

from .problems import StoreProblem, store
from .settings import Settings

TABLES = ("traces", "observations", "scores")
_MIGRATIONS = {
    f"0001_{table}": f"""
        CREATE TABLE IF NOT EXISTS {table} (
            project_id String, id String, trace_id String, time_us Int64, body String, version UInt64
        ) ENGINE = ReplacingMergeTree(version) PARTITION BY tuple() ORDER BY (project_id, id)"""
    for table in TABLES
}


class ClickHouse:
    """Rows are JSON documents keyed by project and id; the newest version of a row is the one that counts."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._url = settings.clickhouse_url.rstrip("/") + "/"
        timeout = urllib3.Timeout(connect=3, read=20)
        self._http = urllib3.PoolManager(timeout=timeout, retries=False)

    def migrate(self) -> int:
        """Make the tables that are missing; how many migrations were applied."""
        greet_native(self._settings)
        self._run(
            "CREATE TABLE IF NOT EXISTS double_migrations (name String, applied_us Int64)"
            " ENGINE = MergeTree PARTITION BY tuple() ORDER BY name"
        )
        applied = {row["name"] for row in self._select("SELECT name FROM double_migrations")}
        missing = [name for name in _MIGRATIONS if name not in applied]
        for name in missing:
            self._run(_MIGRATIONS[name])
            self._insert("double_migrations", [{"name": name, "applied_us": time.time_ns() // 1000}])
        return len(missing)

    def upsert(self, table: str, project: str, rows: Iterable[dict[str, Any]]) -> None:
        """Write documents `{id, trace_id, time_us, body}` over whatever was there."""
        version = time.time_ns()
        self._insert(
            table,
            [
                {**row, "body": json.dumps(row["body"]), "project_id": project, "version": version}
                for row in rows
            ],
        )

    def find(
        self,
        table: str,
        project: str,
        *,
        ids: Iterable[str] | None = None,
        trace_id: str | None = None,
        limit: int = 10_000,
    ) -> list[dict[str, Any]]:
        """The documents of a project, the newest first."""
        where = f"project_id = {_quoted(project)}"
        if ids is not None:
            where += f" AND id IN ({', '.join(map(_quoted, ids))})"
        if trace_id is not None:
            where += f" AND trace_id = {_quoted(trace_id)}"
        return [
            json.loads(row["body"])
            for row in self._select(
                f"SELECT body FROM {table} FINAL WHERE {where} ORDER BY time_us DESC, id LIMIT {limit}"
            )
        ]

    def delete_trace(self, project: str, trace_id: str) -> None:
        """Remove a trace and all that belongs to it (ClickHouse does so in the background)."""
        for table in TABLES:
            self._run(
                f"ALTER TABLE {table} DELETE WHERE project_id = {_quoted(project)}"
                f" AND trace_id = {_quoted(trace_id)}"
            )

    def _select(self, query: str) -> list[dict[str, Any]]:
        answer = self._run(f"{query} FORMAT JSONEachRow")
        return [json.loads(line) for line in answer.splitlines()]

    def _insert(self, table: str, rows: list[dict[str, Any]]) -> None:
        if rows:
            lines = "\n".join(json.dumps(row, ensure_ascii=False) for row in rows)
            self._run(f"INSERT INTO {table} FORMAT JSONEachRow", lines)

    def _run(self, query: str, data: str | None = None) -> str:
        parameters = {"database": self._settings.clickhouse_database}
        if data is not None:
            parameters["query"] = query
        with store("clickhouse", urllib3.exceptions.HTTPError):
            answer = self._http.request(
                "POST",
                f"{self._url}?{urlencode(parameters)}",
                body=(query if data is None else data).encode("utf-8", "replace"),
                headers={
                    "X-ClickHouse-User": self._settings.clickhouse_user,
                    "X-ClickHouse-Key": self._settings.clickhouse_password,
                },
            )
        if answer.status != 200:
            raise StoreProblem("clickhouse", answer.data.decode(errors="replace"))
        return answer.data.decode()


def _quoted(text: str) -> str:
    return "'" + text.replace("\\", "\\\\").replace("'", "\\'") + "'"


def greet_native(settings: Settings) -> None:
    """Log in over the native protocol: Langfuse's own migrations go that way, on CLICKHOUSE_MIGRATION_URL."""
    target = urlsplit(settings.clickhouse_migration_url)
    hello = b"\x00" + b"".join(
        part if isinstance(part, bytes) else _short_string(part)
        for part in (
            "langfuse-double",
            b"\x01\x01\xb4\xa9\x03",  # version 1.1, protocol revision 54452
            settings.clickhouse_database,
            settings.clickhouse_user,
            settings.clickhouse_password,
        )
    )
    with (
        store("clickhouse (native port)", OSError),
        socket.create_connection((target.hostname or "", target.port or 9000), timeout=5) as connection,
    ):
        connection.sendall(hello)
        answer = connection.recv(4096)
    if answer[:1] != b"\x00":
        raise StoreProblem("clickhouse (native port)", "refused the user or the password")


def _short_string(text: str) -> bytes:
    raw = text.encode()
    if len(raw) > 127:
        raise StoreProblem("clickhouse (native port)", "the name or password is over 127 bytes")
    return bytes([len(raw)]) + raw
