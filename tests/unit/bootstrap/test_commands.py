"""The commands: how they end, what they print, and what they hand on."""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from scripts.bootstrap import commands
from scripts.bootstrap.commands import COMMANDS, Call
from scripts.bootstrap.stack import Stack
from scripts.bootstrap.tools import Tools
from scripts.machine.paths import ROOT
from scripts.machine.problems import Problem
from tests.unit.bootstrap.conftest import Program

OUTPUTS = {
    "containers": {"mlflow-server": "mlflow-server"},
    "mlflowUrl": "http://localhost:5000",
    "mlflowAdminUsername": "admin",
    "mlflowAdminPassword": "hush-admin",
    "mlflowUserPasswords": {"alice": "hush-alice"},
    "clientEnv": "MLFLOW_TRACKING_PASSWORD='hush-admin'\n",
}


def with_command(monkeypatch: pytest.MonkeyPatch, command: Callable[[Call], int]) -> None:
    monkeypatch.setattr(commands, "COMMANDS", {"up": command})


def test_makefile_and_commands_are_the_same() -> None:
    targets = re.search(r"^COMMANDS := ((?:.*\\\n)*.*)$", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert targets
    assert targets[1].replace("\\\n", "").split() == list(COMMANDS)


def test_help_tells_of_every_command_in_a_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert commands.main([]) == 0
    shown = capsys.readouterr().out
    for name, command in COMMANDS.items():
        assert re.search(rf"^  {name} +{re.escape(command.__doc__ or '')}$", shown, re.MULTILINE)


@pytest.mark.parametrize(
    ("version", "double"), [("3.225.4", False), ("mlops-stack-airgap/langfuse-double-web:1", True)]
)
def test_a_double_is_never_announced_as_langfuse(version: str, double: bool) -> None:
    outputs = {
        "containers": {"langfuse-web": "langfuse-web"},
        "langfuseUrl": "http://localhost:3000",
        "langfuseVersion": version,
        "langfuseUserEmail": "a@example.com",
    }
    text = "\n".join(commands.welcome(outputs, Stack("dev")))
    assert ("not Langfuse" in text) == double
    assert ("a@example.com" in text) != double


def test_problems_are_told_with_their_fix_and_no_traceback(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def command(call: Call) -> int:
        raise Problem("the disk is full", "make room")

    with_command(monkeypatch, command)
    assert commands.main(["up"]) == 1
    assert capsys.readouterr().err == "error: the disk is full\n  fix: make room\n"


def test_an_interruption_names_the_command_that_goes_on(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def command(call: Call) -> int:
        raise KeyboardInterrupt

    with_command(monkeypatch, command)
    monkeypatch.setenv("STACK", "team-a")
    assert commands.main(["up"]) == 130
    assert "`make up STACK=team-a` goes on" in capsys.readouterr().err


def test_makes_own_variables_are_not_inherited(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: dict[str, Any] = {}

    def command(call: Call) -> int:
        seen.update(os.environ, name=call.name, arguments=call.arguments)
        return 0

    with_command(monkeypatch, command)
    for name in commands._NOT_INHERITED:
        monkeypatch.setenv(name, "x")
    assert commands.main(["up", "--flag"]) == 0
    assert (seen["name"], seen["arguments"]) == ("x", ["--flag"])
    assert not set(commands._NOT_INHERITED) & set(seen)


def test_an_unknown_command(capsys: pytest.CaptureFixture[str]) -> None:
    assert commands.main(["upp"]) == 1
    assert "there is no command 'upp'" in capsys.readouterr().err


@pytest.fixture
def ready(tmp_path: Path, pulumi: Program, docker: Program, monkeypatch: pytest.MonkeyPatch) -> Stack:
    """A machine on which everything is there already."""
    found = Stack("dev", Tools(pulumi.path.parent, {}, "a test's"), tmp_path)
    monkeypatch.setattr(commands, "_stack", lambda call, *, make=True: found)
    monkeypatch.setattr(commands.engine, "ensure", lambda say: None)
    monkeypatch.setattr(commands.images, "prepare", lambda *arguments, **more: None)
    monkeypatch.setattr(commands.stack, "outputs", lambda name: OUTPUTS)
    pulumi.answers("stack export", {"deployment": {}})
    pulumi.answers("stack output", OUTPUTS)
    pulumi.answers("config get", "", code=1, err="configuration key not found")
    return found


def test_a_large_team_comes_after_everything_else(ready: Stack, pulumi: Program) -> None:
    held = {"experiments": {"0": "READ", "1": "READ"}}
    users = [{"name": f"user-{number}", **held} for number in range(70)]
    ready.config_file.write_text("config:\n  mlops-stack:mlflowUsers: []\n")
    pulumi.answers("config get mlops-stack:mlflowUsers", {"objectValue": users})
    assert commands.main(["up"]) == 0
    first, second = (call for call in pulumi.calls if call.startswith("up"))
    assert "--exclude=**pulumi-python:dynamic/mlflow:User::**" in first
    assert "--exclude" not in second


def test_a_large_team_is_forgotten_before_a_destroy(ready: Stack, pulumi: Program, capfd: Any) -> None:
    kind = "pulumi-python:dynamic/mlflow:User"
    team = [{"urn": "urn-of-team", "type": "mlops-stack:components:MlflowTeam"}]
    team += [{"urn": f"urn-{number}", "type": kind} for number in range(300)]
    pulumi.answers("stack export", {"deployment": {"resources": team}})
    assert commands.main(["destroy"]) == 0
    assert "forgetting 300 users" in capfd.readouterr().err
    deleted, destroyed = (call for call in pulumi.calls if call.startswith(("state delete", "destroy")))
    assert deleted.startswith("state delete urn-of-team --target-dependents")
    assert destroyed.startswith("destroy")


def test_up_shows_where_to_go_but_no_password(
    ready: Stack, pulumi: Program, capfd: pytest.CaptureFixture[str]
) -> None:
    assert commands.main(["up", "--target", "x"]) == 0
    shown = capfd.readouterr()
    assert "http://localhost:5000   log in as admin" in shown.out
    assert "make credentials" in shown.out
    assert "Langfuse" not in shown.out  # it is not among the containers
    assert "hush" not in shown.out + shown.err
    assert [call for call in pulumi.calls if call.startswith("up")] == [
        "up --yes --skip-preview --refresh --suppress-outputs --target x --stack dev"
    ]


def test_a_failed_up_ends_with_pulumis_code(
    ready: Stack, pulumi: Program, capfd: pytest.CaptureFixture[str]
) -> None:
    pulumi.answers("up", code=7)
    assert commands.main(["up"]) == 7
    assert "make up goes on from there" in capfd.readouterr().err


def test_destroy_keeps_data_and_says_how_to_remove_it(
    ready: Stack, pulumi: Program, capfd: pytest.CaptureFixture[str]
) -> None:
    volume = {"type": "docker:index/volume:Volume", "id": "mlflow-postgres-data", "protect": True}
    pulumi.answers("stack export", {"deployment": {"resources": [volume, {"type": "x", "id": "secret"}]}})
    assert commands.main(["destroy"]) == 0
    assert any("--exclude-protected" in call for call in pulumi.calls)
    assert not any("unprotect" in call for call in pulumi.calls)
    shown = capfd.readouterr().err
    assert "mlflow-postgres-data" in shown
    assert "make destroy ARGS=--delete-data" in shown


def test_data_goes_only_when_asked(ready: Stack, pulumi: Program) -> None:
    assert commands.main(["destroy", "--delete-data"]) == 0
    changes = [call.split()[0] for call in pulumi.calls if not call.startswith("stack")]
    assert changes == ["state", "destroy"]
    assert not any("--exclude-protected" in call or "--delete-data" in call for call in pulumi.calls)


def test_credentials_are_shown_when_asked_for(ready: Stack, capfd: pytest.CaptureFixture[str]) -> None:
    assert commands.main(["credentials"]) == 0
    shown = capfd.readouterr().out
    assert "hush-admin" in shown
    assert re.search(r"user alice +hush-alice", shown)


def test_env_is_a_shells_to_evaluate(
    ready: Stack, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    ready.tools = Tools(ready.tools.folder, {"PULUMI_HOME": "/a folder/it's"}, "a test's")
    assert commands.main(["env"]) == 0
    script = capfd.readouterr().out
    seen = subprocess.run(
        ["sh", "-ec", f'{script}\nprintf "%s\\n" "$PULUMI_HOME" "$PATH"'],
        capture_output=True,
        text=True,
        check=True,
    ).stdout.splitlines()
    assert seen[0] == "/a folder/it's"
    assert seen[1].startswith(f"{ready.tools.folder}:")
