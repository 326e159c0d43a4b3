"""Started with a required variable missing or wrong, both halves end at once and name it."""

from __future__ import annotations

import subprocess
from collections.abc import Callable

import pytest

from tests.contract.langfuse_double.stack import COMMANDS, Credentials, environment
from tests.engine import Container, Engine

S3 = ("BUCKET", "ENDPOINT", "ACCESS_KEY_ID", "SECRET_ACCESS_KEY", "FORCE_PATH_STYLE")
BOTH = (
    *(
        "DATABASE_URL",
        "CLICKHOUSE_URL",
        "CLICKHOUSE_USER",
        "CLICKHOUSE_PASSWORD",
        "CLICKHOUSE_CLUSTER_ENABLED",
    ),
    *("REDIS_HOST", "ENCRYPTION_KEY"),
    *(f"LANGFUSE_S3_EVENT_UPLOAD_{name}" for name in S3),
    *(f"LANGFUSE_S3_MEDIA_UPLOAD_{name}" for name in S3[1:]),
)
WEB_ONLY = ("NEXTAUTH_URL", "NEXTAUTH_SECRET", "SALT", "CLICKHOUSE_MIGRATION_URL")
REQUIRED = [("web", name) for name in (*BOTH, *WEB_ONLY)] + [("worker", name) for name in BOTH]
WRONG = [
    ("ENCRYPTION_KEY", "z" * 64),
    ("ENCRYPTION_KEY", "0" * 63),
    ("DATABASE_URL", "mysql://somebody:hidden-word@postgres/langfuse"),
    ("NEXTAUTH_URL", "localhost:3000"),
    ("CLICKHOUSE_URL", "clickhouse:8123"),
    ("CLICKHOUSE_MIGRATION_URL", "http://clickhouse:8123"),
    ("CLICKHOUSE_PASSWORD", "hidden-word&more"),
    ("CLICKHOUSE_CLUSTER_ENABLED", "true"),
    ("REDIS_PORT", "70000"),
    ("LANGFUSE_S3_EVENT_UPLOAD_BUCKET", "Under_Score"),
    ("LANGFUSE_S3_EVENT_UPLOAD_PREFIX", "no-slash"),
    ("LANGFUSE_S3_MEDIA_UPLOAD_FORCE_PATH_STYLE", "false"),
    ("LANGFUSE_INIT_USER_EMAIL", "not an address"),
    ("LANGFUSE_INIT_USER_PASSWORD", "hidden7"),
    ("LANGFUSE_INIT_PROJECT_PUBLIC_KEY", ""),
    ("LANGFUSE_INIT_ORG_ID", ""),
]
Start = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture(scope="module")
def start(engine: Engine) -> Start:
    """Starts a half in a container without any store, with its environment changed; name=None unsets."""
    idle: dict[str, Container] = {}

    def start(half: str, name: str, value: str | None) -> subprocess.CompletedProcess[str]:
        if half not in idle:
            plain, secret = environment(half, Credentials())
            variables = (f"--env={key}={word}" for key, word in {**plain, **secret}.items())
            idle[half] = engine.run(f"langfuse-{half}", *variables, "--entrypoint=sleep", command=("600",))
        change = ("-u", name) if value is None else (f"{name}={value}",)
        return idle[half].exec("env", *change, *COMMANDS[half].split(), check=False)

    return start


@pytest.mark.parametrize(("half", "name"), REQUIRED)
def test_a_missing_variable_ends_the_start_with_its_name(start: Start, half: str, name: str) -> None:
    for value in (None, ""):
        ended = start(half, name, value)
        complaints = [line for line in ended.stderr.splitlines() if line.startswith("Invalid environment:")]
        assert ended.returncode == 1
        assert [line.split()[2] for line in complaints] == [name], ended.stderr


@pytest.mark.parametrize(("name", "value"), WRONG)
def test_a_wrong_variable_ends_the_start_with_its_name(start: Start, name: str, value: str) -> None:
    ended = start("web", name, value)
    assert ended.returncode == 1
    assert name in ended.stderr
    assert "hidden" not in ended.stdout + ended.stderr


def test_with_all_variables_it_is_the_store_that_is_missed(start: Start) -> None:
    ended = start("web", "UNRELATED", "1")
    assert ended.returncode == 1
    assert "Invalid environment" not in ended.stderr
    assert "migrations failed: postgres" in ended.stderr
