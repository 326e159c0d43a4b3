"""When set-up writes into a stack's configuration, and what it says to do next. Neither Pulumi nor MLflow is there."""

from __future__ import annotations

import io
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import pytest

from scripts import manage_mlflow_users as manage
from scripts import setup_mlflow_auth as setup
from scripts.bootstrap.stack import Stack
from scripts.machine.problems import Problem

URL, PASSWORD, MEMBERS_PASSWORD = "http://localhost:5000", "a-new-admin-password", "password-of-alice"
OUTPUTS = {"mlflowUrl": URL, "mlflowAdminUsername": "admin", "mlflowAdminPassword": "an-old-password"}
Run = Callable[..., tuple[int, str]]


class Config(Stack):
    """A stack whose settings are lines of a file, without Pulumi. It cannot write what `fails` names."""

    fails = "nothing"

    def set_config(self, path: str, value: str, *, secret: bool = False) -> None:
        if path.endswith(self.fails):
            raise Problem("the disk is full", "make room")
        self.config_file.write_text(f"{self.settings}{path}={value}\n")

    def get_config(self, path: str) -> Any:
        return None


@pytest.fixture
def server() -> Mock:
    """MLflow, as the manager of its users sees it; nobody but administrators has an account."""
    manager = Mock(dry_run=False, users=Mock(return_value=[]), list_users=Mock(return_value=[]))
    manager.has_user.return_value = False
    return manager


@pytest.fixture
def config(tmp_path: Path) -> Config:
    return Config("dev", root=tmp_path)


@pytest.fixture
def run(
    server: Mock, config: Config, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Run:
    """Runs a script with lines of standard input, as somebody who logs in: exit code, and all that was printed."""
    for name in ("USERNAME", "PASSWORD", "URI"):
        monkeypatch.delenv(f"MLFLOW_TRACKING_{name}", raising=False)
        monkeypatch.delenv(f"MLFLOW_ADMIN_{name}", raising=False)
    monkeypatch.setattr(manage.stacks, "outputs", lambda _: OUTPUTS)

    def of(name: str) -> Config:
        config.name = name
        return config

    monkeypatch.setattr(setup, "Stack", of)

    def log_in(login: manage.Login, _say: object) -> Mock:
        server.client.username = login.username()
        return server

    monkeypatch.setattr(manage.Login, "manager", log_in)

    def run(
        *arguments: str, lines: tuple[str, ...] = (), terminal: bool = False, script: Any = setup
    ) -> tuple[int, str]:
        stdin = io.StringIO("".join(f"{line}\n" for line in lines))
        monkeypatch.setattr(stdin, "isatty", lambda: terminal)
        monkeypatch.setattr(sys, "stdin", stdin)
        monkeypatch.setattr(manage.getpass, "getpass", lambda _: input())
        code = script.main(list(arguments))
        said = "".join(capsys.readouterr())
        assert PASSWORD not in said
        assert MEMBERS_PASSWORD not in said
        return code, said

    return run


@pytest.fixture
def team(tmp_path: Path) -> Callable[..., str]:
    def write(password: str = MEMBERS_PASSWORD, **more: Any) -> str:
        file = tmp_path / "team.json"
        file.write_text(json.dumps([{"name": "alice", "password": password, **more}]))
        return str(file)

    return write


def _unchanged(server: Mock, config: Config) -> bool:
    return not (server.change_password.called or server.create_user.called or config.settings)


@pytest.mark.parametrize(("stack", "up"), [("dev", "make up"), ("staging", "make up STACK=staging")])
def test_what_was_written_needs_an_up(
    run: Run, config: Config, team: Callable[..., str], stack: str, up: str
) -> None:
    code, said = run("--keep-admin-password", "--team", team(), "--write-config", "--stack", stack)
    assert (code, "mlflowAdminPassword" in config.settings) == (0, False)
    assert f"mlflowUsers[0].password={MEMBERS_PASSWORD}" in config.settings
    assert f"Run `{up}` now" in said
    code, said = run("--new-admin-password-stdin", "--write-config", "--stack", stack, lines=(PASSWORD,))
    assert code == 0
    assert f"mlflowAdminPassword={PASSWORD}" in config.settings
    assert f"run `{up}` now: until then the other tools log in with the old password" in said


def test_what_was_not_written_has_to_be_set(run: Run, config: Config) -> None:
    expected = "pulumi config set --stack staging --secret mlops-stack:mlflowAdminPassword, then make up STACK=staging"
    arguments = ("--new-admin-password-stdin", "--stack", "staging")
    assert expected in run(*arguments, lines=(PASSWORD,))[1]
    config.fails = "mlflowAdminPassword"
    code, said = run(*arguments, "--write-config", lines=(PASSWORD,))
    assert code == 1
    assert expected in said
    # The same for the other tool, and whoever logs in.
    change = ("change-password", "--password-stdin", "--stack", "staging")
    assert expected in run(*change, lines=(PASSWORD,), script=manage)[1]
    bob = ("--admin-username", "bob")
    assert expected in run(*change, *bob, "--username", "admin", lines=(PASSWORD,), script=manage)[1]
    for others in (("--username", "alice"), bob, ("--tracking-uri", "http://other.example")):
        assert "pulumi" not in run(*change, *others, lines=(PASSWORD,), script=manage)[1]


def test_a_password_that_was_not_changed_needs_nothing(run: Run, server: Mock) -> None:
    server.change_password.return_value = False  # as in a dry run
    assert "pulumi" not in run("change-password", "--password-stdin", lines=(PASSWORD,), script=manage)[1]


def test_another_server_is_not_declared(
    run: Run, server: Mock, config: Config, team: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    elsewhere = ("--tracking-uri", "http://other.example:5000")
    code, said = run(*elsewhere, "--team", team(), "--write-config")
    assert code == 1
    assert "http://other.example:5000 is not the server of the stack dev" in said
    assert URL in said
    assert _unchanged(server, config)
    # Not offered either: there is no question left to answer.
    assert run(*elsewhere, lines=("y", "alice", "n", "y", "", ""), terminal=True)[0] == 0
    assert server.create_user.called
    assert not config.settings

    def no_stack(_: str) -> dict[str, Any]:
        raise Problem("there is no stack called dev", "make up")

    server.reset_mock()
    monkeypatch.setattr(manage.stacks, "outputs", no_stack)
    code, said = run("--team", team(), "--write-config")
    assert code == 1
    assert "there is no stack called dev" in said
    assert _unchanged(server, config)


def test_only_the_stacks_administrators_password_is_a_setting(run: Run, server: Mock, config: Config) -> None:
    bob = ("--admin-username", "bob")
    code, said = run(*bob, "--new-admin-password-stdin", "--write-config", lines=(PASSWORD,))
    assert code == 1
    assert "log in as admin" in said
    assert _unchanged(server, config)
    # Guided: bob gets a new password, alice is declared, and the setting stays.
    answers = ("n", PASSWORD, PASSWORD, "alice", "n", "y", "", "", "y")
    code, said = run(*bob, lines=answers, terminal=True)
    assert code == 0
    server.change_password.assert_called_once_with("bob", PASSWORD)
    assert "mlflowUsers[0].name=alice" in config.settings
    assert "mlflowAdminPassword" not in config.settings + said


def test_a_password_that_a_list_cannot_hold_is_refused_before_anything(
    run: Run, server: Mock, config: Config, team: Callable[..., str]
) -> None:
    digits = "123456789012"
    arguments = ("--new-admin-password-stdin", "--team", team(digits))
    code, said = run(*arguments, "--write-config", lines=(PASSWORD,))
    assert code == 1
    assert "alice: the password has digits only" in said
    assert digits not in said
    assert _unchanged(server, config)
    # MLflow itself takes it.
    assert run(*arguments, lines=(PASSWORD,))[0] == 0
    server.create_user.assert_called_once_with("alice", digits, is_admin=False)
    server.reset_mock()
    # Guided: it is asked for again.
    answers = ("y", "alice", "n", "n", digits, MEMBERS_PASSWORD, MEMBERS_PASSWORD, "", "", "y")
    code, said = run(lines=answers, terminal=True)
    assert code == 0
    assert "digits only" in said
    server.create_user.assert_called_once_with("alice", MEMBERS_PASSWORD, is_admin=False)


def test_who_has_enough_of_being_asked_ends_it(run: Run, server: Mock, config: Config) -> None:
    code, said = run(lines=("y", "alice"), terminal=True)  # then the end of the input, as Ctrl-D makes it
    assert (code, "interrupted" in said) == (130, True)
    assert _unchanged(server, config)


def test_nobody_is_declared_by_halves(run: Run, config: Config, team: Callable[..., str]) -> None:
    config.config_file.write_text("before\n")
    config.fails = ".password"
    code, said = run("--team", team(), "--write-config")
    assert code == 1
    assert "the disk is full" in said
    assert config.settings == "before\n"


def test_names_reach_the_configuration_as_they_are(
    run: Run, config: Config, team: Callable[..., str]
) -> None:
    run("--team", team(experiments={'über "alles"\\': "READ"}), "--write-config")
    assert 'experiments["über \\"alles\\"\\"]=READ' in config.settings


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("http://localhost:5000", "http://127.0.0.1:5000/", True),
        ("http://mlflow.example", "http://mlflow.example:80", True),
        ("https://mlflow.example", "https://mlflow.example:443/", True),
        ("http://mlflow.example", "https://mlflow.example", False),
        ("http://localhost:5000", "http://localhost:5001", False),
        ("", "http://localhost:5000", False),
    ],
)
def test_servers_are_told_apart(one: str, other: str, same: bool) -> None:
    assert manage.same_server(one, other) is same
