"""Whatever is typed after a script's name: a command that is tried, or a refusal in words before anything is started.

No traceback, and no password shown, wherever it was typed.
"""

from __future__ import annotations

import io
import json
import os
import re
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any
from unittest.mock import Mock

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from airgap.images import __main__ as airgap_images
from airgap.toolchain import __main__ as airgap_toolchain
from benchmarks.__main__ import main as benchmarks
from scripts import manage_mlflow_users, pin_images, settings_table, setup_mlflow_auth, validate_services
from scripts.bootstrap import commands
from scripts.machine.processes import end

SECRET = "a-password-that-nobody-shall-see"
_OPTIONS = (
    *("--username", "--password", "--password-stdin", "--new-password", "--admin", "--permission"),
    *("--experiment-id", "--experiment-name", "--model-name", "--tracking-uri", "--admin-username"),
    *("--admin-password", "--admin-password-stdin", "--stack", "--auth-container", "--dry-run", "--json"),
    *("--yes", "--user", "--write", "--outputs", "--patience", "--delete-data", "--user=", "--perm"),
    *("--member", "--admin-member", "--team", "--keep-admin-password", "--new-admin-password-stdin"),
    *("--rebuild", "--check", "--write-config", "--", "-", "-x", "--help"),
)
_COMMANDS = (
    *("create-user", "delete-user", "list-users", "show-user", "change-password", "promote-user"),
    *("demote-user", "grant-exp", "revoke-exp", "grant-model", "revoke-model"),
)
_VALUES = (
    *("alice", "0", "-1", "1e309", "nan", "READ", "read", "", " ", "postgres", "a-long-enough-password"),
    *("http://127.0.0.1:1", "http://[", "http://a b", "ftp://x", "../../x"),
)
# Bytes that are no text reach Python's arguments as lone surrogates; a NUL cannot be in one.
_ODD = st.text(st.characters(exclude_characters="\0"), max_size=40) | st.sampled_from(
    ["x" * 70000, "\udcff", "\u202e", "\x1b[2J"]
)
ARGUMENTS = st.lists(st.sampled_from((*_OPTIONS, *_VALUES)) | _ODD, max_size=8)
# Ways in which a password gets to where none belongs. One that is typed as a name is a name, and is shown in messages.
_SLIPS = st.sampled_from(
    (
        *(["--pasword", SECRET], [f"--pasword={SECRET}"], [f"-p{SECRET}"], [f"-p={SECRET}"], ["-p", SECRET]),
        *(["--password-stdin", SECRET], [f"--password-stdin={SECRET}"], [f"--json={SECRET}"]),
        *(["--password", "spaces and", SECRET], [f"--admin-passw={SECRET}"], ["--admin-passw", SECRET]),
        *(["--admin-password-stdin", SECRET], [f"--admin-password-stdin={SECRET}"], ["--permission", SECRET]),
        *(["--tracking-uri", f"http://x:{SECRET}@h"], ["--tracking-uri", f"http://{SECRET}@h:port"]),
        *(["--admin-password", SECRET], ["--password", SECRET[:9]], ["--password", "\udcff" + SECRET]),
    )
)
_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5) | st.sampled_from(["READ", "alice"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)
_MEMBER = st.fixed_dictionaries(
    {"name": st.just("alice") | _JSON},
    optional={
        "admin": st.booleans() | _JSON,
        "password": st.just(SECRET) | _JSON,
        "experiments": st.just({"churn": "EDIT"}) | _JSON,
        "models": st.just({"id:1": "READ"}) | _JSON,
        "group": _JSON,
    },
)


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[str]:
    """Processes and connections that were tried. No command is installed, nothing answers, nobody types, no time passes."""
    tried: list[str] = []

    def no_command(*_: Any, **__: Any) -> None:
        tried.append("a process")
        raise FileNotFoundError(2, "no such command")

    def no_answer(*_: Any, **__: Any) -> None:
        tried.append("a connection")
        raise ConnectionRefusedError(111, "nothing listens")

    clock = iter(range(1, 10**9, 30))
    monkeypatch.setattr(subprocess.Popen, "__init__", no_command)
    monkeypatch.setattr(socket.socket, "connect", no_answer)
    monkeypatch.setattr(socket, "getaddrinfo", no_answer)
    monkeypatch.setattr(time, "sleep", lambda _: None)
    monkeypatch.setattr(time, "monotonic", lambda: float(next(clock)))
    monkeypatch.setattr(sys, "stdin", io.StringIO(""))
    monkeypatch.setenv("MLOPS_STACK_CACHE", str(tmp_path))
    for name in [*filter(lambda name: name.startswith("MLFLOW_"), os.environ), "STACK"]:
        monkeypatch.delenv(name, raising=False)
    return tried


def _fuzzed(test: Callable[..., None]) -> Callable[..., None]:
    # What the fixtures hold is emptied for each example.
    return settings(
        max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
    )(test)


class Shell:
    """Calls a script's `main`, and looks at what every end of it has in common."""

    def __init__(
        self, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, started: list[str]
    ) -> None:
        self._capsys, self._monkeypatch, self.started = capsys, monkeypatch, started

    def __call__(self, main: Callable[..., int | None], arguments: Sequence[str]) -> tuple[int, str]:
        """The exit code, and what was printed."""
        # As Python's own standard error does.
        if isinstance(sys.stderr, io.TextIOWrapper):
            sys.stderr.reconfigure(errors="backslashreplace")
        self._capsys.readouterr()
        self.started.clear()
        try:
            code = main(arguments) or 0
        except SystemExit as ended:
            code = ended.code if isinstance(ended.code, int) else -1
        said = "".join(self._capsys.readouterr())
        assert code in (0, 1, 2)
        assert said.strip()
        assert "Traceback" not in said
        # Whoever reads it knows which of the arguments it is.
        if code == 2 and said.startswith("usage:"):
            assert not self.started
            told = said.partition("error: ")[2]
            assert re.search(r"--?[a-z]|COMMAND|NAME|arguments|called", told), told
        return code, said

    def as_program(self, main: Callable[[], int], arguments: Sequence[str]) -> tuple[int, str]:
        """The same for one that reads `sys.argv`."""
        self._monkeypatch.setattr(sys, "argv", ["program", *arguments])
        return self(lambda _: end(main), [])


@pytest.fixture
def shell(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, started: list[str]) -> Shell:
    return Shell(capsys, monkeypatch, started)


@_fuzzed
@given(command=st.sampled_from((*_COMMANDS, "list", "")) | _ODD, rest=ARGUMENTS)
def test_manage_mlflow_users(shell: Shell, command: str, rest: list[str]) -> None:
    code, said = shell(manage_mlflow_users.main, [command, *rest])
    assert code != 1 or "❌" in said


@_fuzzed
@given(rest=ARGUMENTS)
def test_a_password_that_was_given_is_not_shown(shell: Shell, rest: list[str]) -> None:
    given = ["create-user", "--username", "alice", "--password", SECRET, "--admin-password", SECRET]
    assert SECRET not in shell(manage_mlflow_users.main, [*given, *rest])[1]


@pytest.mark.parametrize("main", [manage_mlflow_users.main, setup_mlflow_auth.main])
@_fuzzed
@given(
    before=st.lists(st.sampled_from(_COMMANDS), max_size=1),
    rest=ARGUMENTS,
    slip=_SLIPS,
    after=st.lists(st.sampled_from((*_OPTIONS, *_VALUES)), max_size=3),
)
def test_a_password_that_slipped_is_not_shown(
    shell: Shell,
    main: Callable[[Sequence[str]], int],
    before: list[str],
    rest: list[str],
    slip: list[str],
    after: list[str],
) -> None:
    assert SECRET not in shell(main, [*before, *rest, *slip, *after])[1]


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["--username", "alice", "--password", "short"], "--password: the password is shorter than 12"),
        (["--username", "", "--password-stdin"], "--username"),
        (["--username", "a b", "--password-stdin"], "--username: 'a b' is not a user name"),
        (["--username", "alice", "--tracking-uri", "ftp://x"], "--tracking-uri: the MLflow URL 'ftp://x'"),
        (["--username", "alice", "--tracking-uri", "http://a b"], "--tracking-uri: no request"),
        (
            ["--username", "alice", "--tracking-uri", f"http://x:{SECRET}@h"],
            "--tracking-uri: the MLflow URL carries",
        ),
        (["--username", "alice", "--admin-password", "\udcff"], "--admin-password: the value is not UTF-8"),
        (["--username", "alice", "--stack", ""], "--stack"),
        (["--user", "alice"], "--username"),
        (["--username", "alice", "--jsn"], "--jsn"),
        (["--username", "alice", "bob"], "belong to no option"),
    ],
)
def test_a_wrong_value_is_told_by_its_option(shell: Shell, arguments: list[str], named: str) -> None:
    code, said = shell(manage_mlflow_users.main, ["create-user", *arguments])
    assert (code, shell.started) == (2, [])
    assert named in said
    assert SECRET not in said


@_fuzzed
@given(arguments=ARGUMENTS)
def test_setup_mlflow_auth(shell: Shell, arguments: list[str]) -> None:
    code, said = shell(setup_mlflow_auth.main, arguments)
    assert code != 1 or "❌" in said


@_fuzzed
@given(team=st.lists(_MEMBER | _JSON, max_size=3) | _JSON)
def test_a_team_file_is_wrong_before_anybody_logs_in(shell: Shell, tmp_path: Path, team: Any) -> None:
    file = tmp_path / "team.json"
    file.write_text(json.dumps(team))
    code, said = shell(setup_mlflow_auth.main, ["--team", str(file), "--admin-password", "x"])
    assert code == 1
    assert SECRET not in said
    # Either the file is refused by its name, or the log-in fails here.
    assert (str(file) in said) == (not shell.started)


@pytest.mark.parametrize(
    "content", ["", "[" * 100_000, "\ufeff[]", '{"name": "alice"}', '[{"name": "a", "admin": "false"}]']
)
def test_a_team_that_nobody_meant_is_refused(shell: Shell, tmp_path: Path, content: str) -> None:
    file = tmp_path / "team.json"
    file.write_text(content)
    code, said = shell(setup_mlflow_auth.main, ["--team", str(file), "--new-admin-password-stdin"])
    assert (code, shell.started) == (1, [])
    assert str(file) in said


def test_a_wrong_team_on_standard_input_leaves_the_password(
    shell: Shell, monkeypatch: pytest.MonkeyPatch
) -> None:
    manager = Mock()
    monkeypatch.setattr(setup_mlflow_auth.Login, "manager", lambda *_: manager)
    monkeypatch.setattr(sys, "stdin", io.StringIO(f"{SECRET}\n[3]"))
    code, said = shell(setup_mlflow_auth.main, ["--new-admin-password-stdin", "--team", "-"])
    assert code == 1
    assert "entry 0 is not a mapping" in said
    manager.change_password.assert_not_called()


@_fuzzed
@given(arguments=ARGUMENTS)
def test_validate_services(shell: Shell, arguments: list[str]) -> None:
    shell(lambda given: validate_services.main(list(given)), arguments)


@_fuzzed
@given(
    outputs=_JSON
    | st.fixed_dictionaries(
        {"containers": _JSON}, optional={"volumes": _JSON, "mlflowUserPasswords": _JSON, "mlflowUrl": _JSON}
    )
)
def test_outputs_of_any_shape(shell: Shell, tmp_path: Path, outputs: Any) -> None:
    file = tmp_path / "outputs.json"
    file.write_text(json.dumps(outputs))
    code, said = shell(lambda given: validate_services.main(list(given)), ["--outputs", str(file)])
    assert code != 2 or str(file) in said or "has no containers" in said


@pytest.mark.parametrize("patience", ["0", "-1", "nan", "inf", "1e309", "", "soon"])
def test_patience_is_a_time(shell: Shell, patience: str) -> None:
    code, said = shell(lambda given: validate_services.main(list(given)), [f"--patience={patience}"])
    assert (code, shell.started) == (2, [])
    assert "--patience" in said


@_fuzzed
@given(name=_ODD.filter(lambda name: name not in commands.COMMANDS), rest=ARGUMENTS)
def test_make(shell: Shell, name: str, rest: list[str]) -> None:
    code, said = shell(commands.main, [name, *rest])
    assert (code, shell.started) == (1, [])
    assert "there is no command" in said


@_fuzzed
@given(
    name=st.sampled_from(("stop", "start", "env", "credentials", "client-env", "lint", "format", "help")),
    first=st.sampled_from(_OPTIONS) | _ODD,
    rest=ARGUMENTS,
)
def test_make_of_what_takes_no_arguments(shell: Shell, name: str, first: str, rest: list[str]) -> None:
    code, said = shell(commands.main, [name, first, *rest])
    assert (code, shell.started) == (1, [])
    assert f"make {name} takes no ARGS" in said


@_fuzzed
@given(name=_ODD, rest=ARGUMENTS)
def test_benchmarks(shell: Shell, name: str, rest: list[str]) -> None:
    shell(benchmarks, [f"no {name}", *rest])
    assert not shell.started


@pytest.mark.parametrize("program", [airgap_images, airgap_toolchain])
@_fuzzed
@given(known=st.sampled_from((["mc"], [])), name=_ODD, rest=ARGUMENTS)
def test_airgap(shell: Shell, program: Any, known: list[str], name: str, rest: list[str]) -> None:
    _, said = shell.as_program(program.main, [*known, f"no {name}", *rest])
    assert not shell.started
    assert said.startswith("usage:") or "is called" in said


@pytest.mark.parametrize("program", [pin_images, settings_table])
@_fuzzed
@given(name=_ODD, rest=ARGUMENTS)
def test_programs_without_names(shell: Shell, program: Any, name: str, rest: list[str]) -> None:
    code, said = shell.as_program(program.main, [f"no {name}", *rest])
    assert not shell.started
    assert said.startswith("usage:")
    assert code == 2 or "--help" in rest


@pytest.mark.parametrize("script", [manage_mlflow_users, setup_mlflow_auth, validate_services])
def test_a_script_starts_as_a_file_from_anywhere(script: ModuleType, tmp_path: Path) -> None:
    file = str(script.__file__)
    done = subprocess.run(
        [sys.executable, file, "--help"], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("usage:")


@pytest.mark.parametrize(
    "command",
    [
        ("scripts.bootstrap", "help"),
        ("scripts.manage_mlflow_users", "--help"),
        ("scripts.settings_table", "--help"),
        ("scripts.setup_mlflow_auth", "--help"),
        ("scripts.validate_services", "--help"),
    ],
)
def test_a_reader_that_has_enough_is_no_error(command: Sequence[str]) -> None:
    buffered = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}
    reads, writes = os.pipe()
    os.close(reads)
    try:
        done = subprocess.run(
            [sys.executable, "-m", *command], env=buffered, stdout=writes, stderr=subprocess.PIPE, check=False
        )
    finally:
        os.close(writes)
    assert (done.returncode, done.stderr) == (0, b"")
