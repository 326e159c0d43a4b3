"""Mistakes that people make, and what they are told: the key, the problem and the fix, before anything is touched."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings, strategies

from components.problems import ProblemsError
from components.settings import PROJECT, each, load

_K = "0123456789abcdef" * 4
_USER = {"name": "alice"}

# (key, value, a word of the problem or the fix)
MISTAKES: list[tuple[str, Any, str]] = [
    *[
        ("namePrefix", value, "hyphen")
        for value in ("Team-", "team", "-team-", "team_a-", "a" * 40 + "-", "ä-", "a b-")
    ],
    *[("bindAddress", value, "IP address") for value in ("localhost", "", "256.0.0.1", "0.0.0.0:80", "*")],
    *[
        ("registryMirror", value, "registry")
        for value in (
            "https://mirror.example.com",
            "mirror/",
            "Mirror.example.com",
            "a b",
            "mirror:port",
            "//x",
        )
    ],
    ("images", {"postgress": "postgres:17"}, "postgress"),
    ("images", {"postgres": "postgres"}, "exact version"),
    ("images", {"postgres": "postgres:latest"}, "exact version"),
    ("images", {"postgres": "Postgres:17"}, "reference"),
    ("images", {"postgres": 17}, "reference"),
    ("images", {"postgres": "postgres@sha256:abc"}, "reference"),
    ("images", "postgres:17", "mapping"),
    ("images", ["postgres:17"], "mapping"),
    *[("dataRetention", value, "keep, delete") for value in ("", "Keep", "forever", "true")],
    *[("publishDataStores", value, "true or false") for value in ("yes", "1", "", "TRUE")],
    *[
        (key, value, "memory limit")
        for key in ("mlflowMemory", "postgresMemory", "langfuseClickhouseMemory", "langfuseRedisMemory")
        for value in ("", "2", "2gb", "two", "-1g", "0g", "1.5g", "2 g", "2G")
    ],
    *[("minioMemory", value, "64m") for value in ("1m", "63m", "9999999g")],
    *[
        (key, value, "range")
        for key in ("mlflowPort", "langfusePort", "langfuseMinioPort", "mlflowMinioConsolePort")
        for value in (0, -1, 65536, 99999)
    ],
    *[
        ("mlflowPort", value, "whole number")
        for value in ("http", "", "5000/tcp", "50.5", "5000:5000", "true", "[]")
    ],
    *[("mlflowVersion", value, "3.4.0") for value in ("3.4", "latest", "v3.4.0", "2.22.0", "3.5.0", "")],
    *[
        ("mlflowPublicUrl", value, "https://mlflow.example.com")
        for value in (
            *(
                "mlflow.example.com",
                "ftp://a",
                "https://",
                "https://u:p@a",
                "https://a/mlflow",
                "https://a?x=1",
            ),
            *("https://a b", "https://a:port", "https://a#top"),
        )
    ],
    *[("mlflowAllowedHosts", [value], "host name") for value in ("https://a", "a b", "", "a/b", 7)],
    ("mlflowAllowedHosts", "mlflow.example.com", "list"),
    *[("mlflowAdminUsername", value, "letters") for value in ("", "a:b", "a b", "-a", "ä", "a" * 200, "a/b")],
    *[("mlflowAdminPassword", value, "12") for value in ("short", "elevenchars", "password")],
    *[
        ("mlflowAdminPassword", value, "cannot carry")
        for value in ("with\nline-break", " outer space ", "ünicode-password", "a" * 201)
    ],
    ("mlflowAdminPassword", "password1234", "publishes"),
    *[("mlflowDefaultPermission", value, "READ") for value in ("read", "NONE", "WRITE", "")],
    *[
        ("mlflowBucket", value, "bucket")
        for value in ("", "ab", "Upper", "under_score", "a..b", "-a-", "192.168.0.1", "a" * 64)
    ],
    *[(key, 0, "range") for key in ("mlflowWorkers", "mlflowThreads", "mlflowDatabasePoolSize")],
    ("mlflowAuthCacheSeconds", -1, "range"),
    ("mlflowAuthCacheSeconds", 3601, "range"),
    *[
        ("mlflowPostgresPassword", value, "letters and digits")
        for value in ("short", "with-a-hyphen-12", "with@at1234567", "x" * 129)
    ],
    *[("mlflowMinioRootUser", value, "letters and digits") for value in ("ab", "with-hyphen", "a" * 65)],
    ("mlflowFlaskSecretKey", "too-short", "32"),
    *[
        ("mlflowDatabaseUrl", value, "postgresql+psycopg2://")
        for value in (
            *("postgres://u:p@h/d", "postgresql://u:p@h/d", "postgresql+psycopg2://h/d"),
            *("postgresql+psycopg2://u:p@h", "postgresql+psycopg2://u:p@h:port/d", "mysql://u:p@h/d"),
        )
    ],
    *[("mlflowS3Endpoint", value, "https://") for value in ("s3.example.com", "s3://bucket")],
    *[("mlflowUsers", value, "list") for value in ("alice", {"name": "alice"}, 7)],
    *[
        ("mlflowUsers", [value], "name")
        for value in ("alice", {}, {"user": "alice"}, {"name": 7}, {"name": "a b"}, {"name": ""})
    ],
    ("mlflowS3Endpoint", "https://key:secret@host", "credentials"),
    ("langfuseClickhouseUrl", "https://user:password@host", "credentials"),
    ("mlflowUsers", [{**_USER, "role": "admin"}], "unknown key 'role'"),
    ("mlflowUsers", [{**_USER, "admin": "yes"}], "true or false"),
    ("mlflowUsers", [{**_USER, "password": "short"}], "12"),
    ("mlflowUsers", [{**_USER, "password": "password1234"}], "publishes"),
    ("mlflowUsers", [{**_USER, "password": 123456789012}], "a number"),
    ("mlflowUsers", [{**_USER, "experiments": ["churn"]}], "mapping"),
    ("mlflowUsers", [{**_USER, "experiments": {"churn": "WRITE"}}], "no permission"),
    ("mlflowUsers", [{**_USER, "experiments": {"": "READ"}}], "printable"),
    ("mlflowUsers", [{**_USER, "models": {"churn": None}}], "no permission"),
    ("mlflowUsers", [_USER, _USER], "twice"),
    ("mlflowUsers", [{"name": "admin"}], "administrator"),
    *[("langfuseVersion", value, "3.225.4") for value in ("3", "4.0.0", "2.95.1", "latest", "v3.225.4", "")],
    *[("langfuseOrganizationId", value, "letters") for value in ("", "a b", "-a", "a/b", "ä")],
    *[("langfuseProjectName", value, "60") for value in ("", "  ", "a" * 61, "a\nb")],
    *[
        ("langfuseUserEmail", value, "e-mail")
        for value in (
            "",
            "ada",
            "ada@",
            ".ada@example.com",
            "ada.@example.com",
            "a%b@example.com",
            "ada@-example.com",
            "@example.com",
            "ada@example",
            "a b@example.com",
            "ada@exa..mple.com",
        )
    ],
    *[("langfuseUserPassword", value, "8") for value in ("1234567", "ünicode-pass")],
    *[
        ("langfusePublicKey", value, "pk-lf-")
        for value in ("pk-123", "sk-lf-12345678", "pk-lf-", "pk-lf-a b c d e f")
    ],
    *[("langfuseSecretKey", value, "sk-lf-") for value in ("sk-123", "pk-lf-12345678")],
    *[
        ("langfuseEncryptionKey", value, "64 hex")
        for value in (_K[:63], _K + "0", "g" * 64, "secret", _K[:-1] + " ")
    ],
    *[("langfuseSalt", value, "base64") for value in ("short", "c2hvcnQ=", "!" * 44, "0" * 33)],
    ("langfuseNextauthSecret", "short", "32"),
    *[("langfuseEventsBucket", value, "bucket") for value in ("", "Events", "a_b", "xn--bucket")],
    *[("langfuseEventsPrefix", value, "slash") for value in ("events", "/events/", "a//", "a b/")],
    *[
        ("langfuseDatabaseUrl", value, "postgresql://")
        for value in ("postgres://u:p@h/d", "postgresql://h/d", "h")
    ],
    *[("langfuseRedisUrl", value, "redis://") for value in ("h:6379", "http://h:6379", "redis://")],
    *[("langfuseClickhouseUrl", value, "https://") for value in ("h:8123", "clickhouse://h:9000")],
    *[("langfuseClickhouseMigrationUrl", value, "clickhouse://") for value in ("https://h:8443", "h:9000")],
    *[("langfuseClickhouseUser", value, "letters") for value in ("", "a-b", "1a", "a b", "<user>")],
    *[("langfuseTelemetry", value, "true or false") for value in ("off", "no", "0")],
]
# (settings, the key that is named, a word of the problem or the fix)
TOGETHER: list[tuple[dict[str, Any], str, str]] = [
    ({"mlflowPort": 3000}, "langfusePort", "mlflowPort"),
    ({"langfuseMinioPort": 5000}, "langfuseMinioPort", "mlflowPort"),
    ({"publishDataStores": True, "mlflowPostgresPort": 5434}, "langfusePostgresPort", "mlflowPostgresPort"),
    ({"mlflowEnabled": False, "langfuseEnabled": False}, "mlflowEnabled", "switched off"),
    ({"mlflowS3Endpoint": "https://s3.example.com"}, "mlflowS3AccessKeyId", "managed S3"),
    ({"langfuseS3Endpoint": "https://s3.example.com"}, "langfuseS3SecretAccessKey", "managed S3"),
    ({"mlflowS3AccessKeyId": "access-key"}, "mlflowS3AccessKeyId", "mlflowS3Endpoint"),
    ({"langfuseClickhouseUrl": "https://h:8443"}, "langfuseClickhouseMigrationUrl", "clickhouse://"),
    ({"langfuseClickhouseUrl": "https://h:8443"}, "langfuseClickhousePassword", "needs it"),
    ({"langfuseClickhouseMigrationUrl": "clickhouse://h:9440"}, "langfuseClickhouseUrl", "https://"),
    ({"langfusePublicKey": "pk-lf-12345678"}, "langfuseSecretKey", "half"),
    (
        {"langfuseEventsBucket": "one", "langfuseMediaBucket": "one", "langfuseMediaPrefix": "events/"},
        "langfuseMediaBucket",
        "langfuseEventsBucket",
    ),
    (
        {
            "mlflowDatabaseUrl": "postgresql+psycopg2://u:p@h:5432/mlflow",
            "mlflowAuthDatabaseUrl": "postgresql+psycopg2://v:q@h:5432/mlflow",
        },
        "mlflowAuthDatabaseUrl",
        "another database",
    ),
    ({"mlflowPrt": 5001}, "mlflowPrt", "mlflowPort"),
    ({"mlflow_port": 5001}, "mlflow_port", "no setting"),
    ({"completely": "unknown"}, "completely", "README"),
]


def _load(given: dict[str, Any], *, secret: bool = True) -> ProblemsError | None:
    raw = {
        f"{PROJECT}:{key}": value if isinstance(value, str) else json.dumps(value)
        for key, value in given.items()
    }
    try:
        load(raw, list(raw) if secret else [])
    except ProblemsError as error:
        return error
    return None


@pytest.mark.parametrize(("key", "value", "word"), MISTAKES)
def test_a_mistake_is_named_with_its_key_and_a_fix(key: str, value: Any, word: str) -> None:
    error = _load({key: value})
    assert error is not None
    (problem,) = error.problems
    assert problem.key == f"{PROJECT}:{key}"
    assert word in f"{problem.problem} {problem.fix}"
    assert problem.fix


@pytest.mark.parametrize(("given", "key", "word"), TOGETHER)
def test_settings_that_do_not_go_together_are_refused(given: dict[str, Any], key: str, word: str) -> None:
    error = _load(given)
    assert error is not None
    problems = {problem.key: f"{problem.problem} {problem.fix}" for problem in error.problems}
    assert word in problems[f"{PROJECT}:{key}"]


def test_all_mistakes_are_told_at_once() -> None:
    error = _load({"mlflowPort": 0, "langfuseVersion": "4.0.0", "unknown": "x"})
    assert error is not None
    assert len(error.problems) == 3


def test_a_secret_is_neither_taken_in_plain_text_nor_repeated() -> None:
    for key, value in (("langfuseEncryptionKey", _K), ("mlflowAdminPassword", "a-good-password")):
        error = _load({key: value}, secret=False)
        assert error is not None
        assert "plain text" in str(error)
        assert "--secret" in str(error)
        assert value not in str(error)
    for key, section, item in each():
        if item.metadata["secret"]:
            error = _load({key: "wrong ümlaut secret"})
            assert error is not None, section
            assert "ümlaut" not in str(error)


_KEYS = [key for key, _, _ in each()]


@settings(max_examples=400, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow])
@given(strategies.dictionaries(strategies.sampled_from(_KEYS), strategies.text(max_size=60), max_size=4))
def test_any_text_is_taken_or_refused_with_a_fix(given: dict[str, str]) -> None:
    error = _load(given)
    for problem in error.problems if error else ():
        assert problem.key.startswith(f"{PROJECT}:")
        assert problem.fix


_JSON = strategies.recursive(
    strategies.none() | strategies.booleans() | strategies.integers() | strategies.text(max_size=12),
    lambda inner: (
        strategies.lists(inner, max_size=3)
        | strategies.dictionaries(strategies.text(max_size=8), inner, max_size=3)
    ),
    max_leaves=8,
)


@settings(max_examples=300, deadline=None, derandomize=True)
@given(
    strategies.lists(
        strategies.dictionaries(
            strategies.sampled_from(["name", "admin", "password", "adopt", "experiments", "models", "other"]),
            _JSON,
        )
    )
)
def test_any_team_is_taken_or_refused_with_a_fix(team: list[dict[str, Any]]) -> None:
    error = _load({"mlflowUsers": team})
    assert all(problem.fix for problem in (error.problems if error else ()))
