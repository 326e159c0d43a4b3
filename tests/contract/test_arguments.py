"""Whatever is typed after a script's name: a command that is tried, or a refusal in words; no traceback, no password shown."""

from __future__ import annotations

import io
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from benchmarks.__main__ import main as benchmarks
from scripts import manage_mlflow_users, setup_mlflow_auth, validate_services
from scripts.bootstrap import commands

SECRET = "a-password-that-nobody-shall-see"
_OPTIONS = (
    *("--username", "--password", "--password-stdin", "--new-password", "--admin", "--permission"),
    *("--experiment-id", "--experiment-name", "--model-name", "--tracking-uri", "--admin-username"),
    *(
        "--admin-password",
        "--admin-password-stdin",
        "--stack",
        "--auth-container",
        "--dry-run",
        "--json",
        "--yes",
    ),
    *(
        "--user",
        "--write",
        "--outputs",
        "--patience",
        "--delete-data",
        "--user=",
        "--perm",
        "--",
        "-",
        "-x",
        "--help",
    ),
)
_COMMANDS = (
    *(
        "create-user",
        "delete-user",
        "list-users",
        "show-user",
        "change-password",
        "promote-user",
        "demote-user",
    ),
    *("grant-exp", "revoke-exp", "grant-model", "revoke-model"),
)
_VALUES = (
    "alice",
    "0",
    "-1",
    "1e309",
    "READ",
    "read",
    "",
    " ",
    "http://127.0.0.1:1",
    "http://[",
    "ftp://x",
)
# Bytes that are no text reach Python's arguments as lone surrogates; a NUL cannot be in one.
_ODD = st.text(st.characters(exclude_characters="\0"), max_size=40) | st.sampled_from(
    ["x" * 70000, "\udcff", "\u202e"]
)
ARGUMENTS = st.lists(st.sampled_from((*_OPTIONS, *_VALUES)) | _ODD, max_size=8)


@pytest.fixture
def alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """No command is installed, nothing answers, nobody types, and waiting takes no time."""

    def no_command(*_: Any, **__: Any) -> None:
        raise FileNotFoundError(2, "no such command")

    def no_answer(*_: Any, **__: Any) -> None:
        raise ConnectionRefusedError(111, "nothing listens")

    clock = iter(range(1, 10**9, 30))
    monkeypatch.setattr(subprocess.Popen, "__init__", no_command)
    monkeypatch.setattr(socket.socket, "connect", no_answer)
    monkeypatch.setattr(socket, "getaddrinfo", no_answer)
    monkeypatch.setattr(time, "sleep", lambda _: None)
    monkeypatch.setattr(time, "monotonic", lambda: float(next(clock)))
    monkeypatch.setattr(sys, "stdin", io.StringIO(""))


def _ended(main: Callable[[Sequence[str]], int | None], arguments: Sequence[str]) -> int:
    # As Python's own standard error does.
    if isinstance(sys.stderr, io.TextIOWrapper):
        sys.stderr.reconfigure(errors="backslashreplace")
    try:
        return main(arguments) or 0
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else 1


def _fuzzed(test: Callable[..., None]) -> Callable[..., None]:
    # The fixtures hold no state that an example could leave to the next one.
    return settings(
        max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
    )(test)


@pytest.mark.usefixtures("alone")
@_fuzzed
@given(command=st.sampled_from((*_COMMANDS, "list", "")) | _ODD, rest=ARGUMENTS)
def test_manage_mlflow_users(capsys: pytest.CaptureFixture[str], command: str, rest: list[str]) -> None:
    code = _ended(manage_mlflow_users.main, [command, *rest])
    _said(capsys, code, rest)


@pytest.mark.usefixtures("alone")
@_fuzzed
@given(rest=ARGUMENTS)
def test_a_password_that_was_given_is_not_shown(capsys: pytest.CaptureFixture[str], rest: list[str]) -> None:
    given = ["create-user", "--username", "alice", "--password", SECRET, "--admin-password", SECRET]
    code = _ended(manage_mlflow_users.main, [*given, *rest])
    assert SECRET not in _said(capsys, code, rest)


@pytest.mark.usefixtures("alone")
@_fuzzed
@given(arguments=ARGUMENTS)
def test_setup_mlflow_auth(capsys: pytest.CaptureFixture[str], arguments: list[str]) -> None:
    code = _ended(setup_mlflow_auth.main, arguments)
    _said(capsys, code, arguments)


@pytest.mark.usefixtures("alone")
@_fuzzed
@given(arguments=ARGUMENTS)
def test_validate_services(capsys: pytest.CaptureFixture[str], arguments: list[str]) -> None:
    code = _ended(lambda given: validate_services.main(list(given)), arguments)
    _said(capsys, code, arguments)


@pytest.mark.usefixtures("alone")
@_fuzzed
@given(name=_ODD.filter(lambda name: name not in commands.COMMANDS), rest=ARGUMENTS)
def test_make(capsys: pytest.CaptureFixture[str], name: str, rest: list[str]) -> None:
    code = _ended(commands.main, [name, *rest])
    assert code == 1
    assert "there is no command" in _said(capsys, code, rest)


@pytest.mark.usefixtures("alone")
@_fuzzed
@given(name=_ODD, rest=ARGUMENTS)
def test_benchmarks(capsys: pytest.CaptureFixture[str], name: str, rest: list[str]) -> None:
    code = _ended(benchmarks, [f"no {name}", *rest])
    _said(capsys, code, rest)


def _said(capsys: pytest.CaptureFixture[str], code: int, arguments: Sequence[str]) -> str:
    """What was printed; it explains a refusal, and holds no secret."""
    said = "".join(capsys.readouterr())
    assert code in (0, 1, 2)
    assert said.strip()
    assert "Traceback" not in said
    return said
