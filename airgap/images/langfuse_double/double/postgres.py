"""Organisations, projects, users, API keys, prompts and media records in Postgres."""

from __future__ import annotations

import hashlib
import hmac
import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from urllib.parse import parse_qsl, urlencode, urlsplit, urlunsplit

import psycopg
from psycopg.rows import DictRow, dict_row
from psycopg.types.json import Jsonb

from .problems import store
from .settings import Settings

_MIGRATIONS = {
    "0001_tenants": """
        CREATE TABLE organizations (id text PRIMARY KEY, name text NOT NULL);
        CREATE TABLE projects (
            id text PRIMARY KEY, name text NOT NULL, org_id text NOT NULL REFERENCES organizations);
        CREATE TABLE api_keys (
            public_key text PRIMARY KEY, hashed_secret text NOT NULL,
            project_id text NOT NULL REFERENCES projects);
        CREATE TABLE users (email text PRIMARY KEY, name text NOT NULL, password text NOT NULL)""",
    "0002_prompts": """
        CREATE TABLE prompts (
            id uuid PRIMARY KEY DEFAULT gen_random_uuid(), project_id text NOT NULL REFERENCES projects,
            name text NOT NULL, version integer NOT NULL, type text NOT NULL, prompt jsonb NOT NULL,
            config jsonb NOT NULL, labels text[] NOT NULL, tags text[] NOT NULL, commit_message text,
            created_at timestamptz NOT NULL DEFAULT now(), updated_at timestamptz NOT NULL DEFAULT now(),
            UNIQUE (project_id, name, version))""",
    "0003_media": """
        CREATE TABLE media (
            id text, project_id text NOT NULL REFERENCES projects, key text NOT NULL,
            content_type text NOT NULL, content_length bigint NOT NULL, uploaded_at timestamptz,
            PRIMARY KEY (project_id, id))""",
}
# Prisma's own connection parameters mean nothing to libpq, which refuses what it does not know.
_PRISMA_ONLY = {"schema", "connection_limit", "pool_timeout", "socket_timeout", "pgbouncer"}
_LOCK = 3_225_004


class Postgres:
    """Every call has a connection of its own: after an outage there is nothing to mend."""

    def __init__(self, settings: Settings) -> None:
        parts = urlsplit(settings.database_url)
        known = [(name, value) for name, value in parse_qsl(parts.query) if name not in _PRISMA_ONLY]
        self._url = urlunsplit(parts._replace(query=urlencode(known)))
        self._salt = settings.salt

    def ping(self) -> None:
        """Raise a StoreProblem unless a query is answered."""
        self._rows("SELECT 1")

    def migrate(self) -> int:
        """Apply the missing migrations, one web at a time; how many they were."""
        with self._connected() as connection:
            connection.execute("SELECT pg_advisory_xact_lock(%s)", (_LOCK,))
            connection.execute(
                "CREATE TABLE IF NOT EXISTS double_migrations"
                " (name text PRIMARY KEY, applied_at timestamptz NOT NULL)"
            )
            applied = {row["name"] for row in connection.execute("SELECT name FROM double_migrations")}
            missing = [name for name in _MIGRATIONS if name not in applied]
            for name in missing:
                connection.execute(_MIGRATIONS[name].encode())
                connection.execute("INSERT INTO double_migrations VALUES (%s, now())", (name,))
        return len(missing)

    def initialise(self, init: dict[str, str]) -> None:
        """Create what LANGFUSE_INIT_* names and is not there; what is there stays as it is."""
        with self._connected() as connection:
            if "ORG_ID" in init:
                connection.execute(
                    "INSERT INTO organizations VALUES (%s, %s) ON CONFLICT DO NOTHING",
                    (init["ORG_ID"], init.get("ORG_NAME", "Provisioned Org")),
                )
            if "PROJECT_ID" in init:
                connection.execute(
                    "INSERT INTO projects VALUES (%s, %s, %s) ON CONFLICT DO NOTHING",
                    (init["PROJECT_ID"], init.get("PROJECT_NAME", "Provisioned Project"), init["ORG_ID"]),
                )
                if "PROJECT_PUBLIC_KEY" in init:
                    connection.execute(
                        "INSERT INTO api_keys VALUES (%s, %s, %s) ON CONFLICT DO NOTHING",
                        (
                            init["PROJECT_PUBLIC_KEY"],
                            self._hashed(init["PROJECT_SECRET_KEY"]),
                            init["PROJECT_ID"],
                        ),
                    )
            if "USER_EMAIL" in init:
                connection.execute(
                    "INSERT INTO users VALUES (%s, %s, %s) ON CONFLICT DO NOTHING",
                    (
                        init["USER_EMAIL"],
                        init.get("USER_NAME", "Provisioned User"),
                        _scrypt(init["USER_PASSWORD"]),
                    ),
                )

    def project_of(self, public_key: str, secret_key: str) -> dict[str, Any] | None:
        """The project that a key pair opens, with its organisation's id and name."""
        rows = self._rows(
            "SELECT p.id, p.name, o.id AS org_id, o.name AS org_name, k.hashed_secret FROM api_keys k"
            " JOIN projects p ON p.id = k.project_id JOIN organizations o ON o.id = p.org_id"
            " WHERE k.public_key = %s",
            public_key,
        )
        if not rows or not hmac.compare_digest(rows[0].pop("hashed_secret"), self._hashed(secret_key)):
            return None
        return rows[0]

    def add_prompt(self, project: str, body: dict[str, Any]) -> dict[str, Any]:
        """A new version of a prompt; it takes its labels, and `latest`, from older versions."""
        name, labels = body["name"], sorted({*(body.get("labels") or []), "latest"})
        with self._connected() as connection:
            connection.execute("SELECT pg_advisory_xact_lock(hashtext(%s))", (f"{project}/{name}",))
            self._take_labels(connection, project, name, labels)
            return _only(
                connection.execute(
                    """
                    INSERT INTO prompts
                        (project_id, name, version, type, prompt, config, labels, tags, commit_message)
                    SELECT %(project)s, %(name)s, coalesce(max(version), 0) + 1,
                        %(type)s, %(prompt)s, %(config)s, %(labels)s, %(tags)s, %(message)s
                    FROM prompts WHERE project_id = %(project)s AND name = %(name)s
                    RETURNING *""",
                    {
                        "project": project,
                        "name": name,
                        "type": body.get("type", "text"),
                        "prompt": Jsonb(body["prompt"]),
                        "config": Jsonb(body.get("config") or {}),
                        "labels": labels,
                        "tags": body.get("tags") or [],
                        "message": body.get("commitMessage"),
                    },
                )
            )

    def label_prompt(self, project: str, name: str, version: int, labels: list[str]) -> dict[str, Any] | None:
        """Give labels to a version, taking them from the others."""
        with self._connected() as connection:
            self._take_labels(connection, project, name, labels)
            rows = connection.execute(
                "UPDATE prompts SET updated_at = now(),"
                " labels = ARRAY(SELECT DISTINCT unnest(labels || %s::text[]) ORDER BY 1)"
                " WHERE project_id = %s AND name = %s AND version = %s RETURNING *",
                (labels, project, name, version),
            ).fetchall()
            if not rows:
                connection.rollback()
            return rows[0] if rows else None

    def prompt(
        self, project: str, name: str, *, version: int | None = None, label: str = "production"
    ) -> dict[str, Any] | None:
        """One version of a prompt, by number or by label."""
        which = "%s = ANY(labels)" if version is None else "version = %s"
        rows = self._rows(
            f"SELECT * FROM prompts WHERE project_id = %s AND name = %s AND {which}",
            project,
            name,
            label if version is None else version,
        )
        return rows[0] if rows else None

    def prompts(self, project: str) -> list[dict[str, Any]]:
        """Every version of every prompt, newest versions first."""
        return self._rows("SELECT * FROM prompts WHERE project_id = %s ORDER BY name, version DESC", project)

    def add_media(self, project: str, media: str, key: str, content_type: str, length: int) -> bool:
        """Record media that is about to come; False where it has been uploaded before."""
        rows = self._rows(
            "INSERT INTO media AS m VALUES (%s, %s, %s, %s, %s) ON CONFLICT (project_id, id)"
            " DO UPDATE SET key = m.key RETURNING uploaded_at",
            media,
            project,
            key,
            content_type,
            length,
        )
        return rows[0]["uploaded_at"] is None

    def media_uploaded(self, project: str, media: str, at: str) -> bool:
        """Note that the upload succeeded; False where no such media is known."""
        return bool(
            self._rows(
                "UPDATE media SET uploaded_at = %s WHERE project_id = %s AND id = %s RETURNING id",
                at,
                project,
                media,
            )
        )

    def media(self, project: str, media: str) -> dict[str, Any] | None:
        """The record of uploaded media."""
        rows = self._rows(
            "SELECT * FROM media WHERE project_id = %s AND id = %s AND uploaded_at IS NOT NULL",
            project,
            media,
        )
        return rows[0] if rows else None

    @contextmanager
    def _connected(self) -> Iterator[psycopg.Connection[DictRow]]:
        # The driver's messages tell host and user, never the password.
        with (
            store("postgres", psycopg.Error),
            psycopg.connect(self._url, connect_timeout=5, row_factory=dict_row) as connection,
        ):
            yield connection

    def _rows(self, query: str, *parameters: Any) -> list[dict[str, Any]]:
        with self._connected() as connection:
            return connection.execute(query.encode(), parameters).fetchall()

    @staticmethod
    def _take_labels(connection: psycopg.Connection, project: str, name: str, labels: list[str]) -> None:
        connection.execute(
            "UPDATE prompts SET labels = ARRAY(SELECT unnest(labels) EXCEPT SELECT unnest(%s::text[]))"
            " WHERE project_id = %s AND name = %s AND labels && %s::text[]",
            (labels, project, name, labels),
        )

    def _hashed(self, secret: str) -> str:
        """Langfuse's own way: SHA-256 of the key, then of the salt's hash."""
        salt = hashlib.sha256(self._salt.encode()).hexdigest()
        return hashlib.sha256(secret.encode() + salt.encode()).hexdigest()


def _only(cursor: psycopg.Cursor[DictRow]) -> dict[str, Any]:
    (row,) = cursor.fetchall()
    return row


def _scrypt(password: str) -> str:
    salt = os.urandom(16)
    return f"scrypt:{salt.hex()}:{hashlib.scrypt(password.encode(), salt=salt, n=2**14, r=8, p=1).hex()}"
