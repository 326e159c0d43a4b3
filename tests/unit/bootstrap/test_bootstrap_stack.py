"""The passphrase, the environment, and what goes to `pulumi` and how."""

from __future__ import annotations

import stat
import subprocess
from pathlib import Path

import pytest

from scripts.bootstrap.stack import PASSPHRASE, Stack, environment, state_folder
from scripts.bootstrap.tools import Tools
from scripts.machine.problems import Problem
from tests.unit.bootstrap.conftest import Program


@pytest.fixture
def root(tmp_path: Path) -> Path:
    folder = tmp_path / "checkout"
    folder.mkdir()
    return folder


@pytest.fixture
def stack(root: Path, pulumi: Program) -> Stack:
    return Stack("dev", Tools(pulumi.path.parent, {}, "a test's"), root)


def test_first_use_makes_a_private_passphrase_once(stack: Stack, root: Path, said: list[str]) -> None:
    stack.ensure(said.append)
    made = (root / PASSPHRASE).read_text()
    stack.ensure(said.append)
    assert len(made.strip()) >= 32
    assert (root / PASSPHRASE).read_text() == made
    assert stat.S_IMODE((root / PASSPHRASE).stat().st_mode) == 0o600
    assert made.strip() not in "".join(said)
    assert stack.environment["PULUMI_CONFIG_PASSPHRASE_FILE"] == str(root / PASSPHRASE)
    assert state_folder(root) == root / ".pulumi-state"
    assert (root / ".pulumi-state").is_dir()


@pytest.mark.parametrize("variable", ["PULUMI_CONFIG_PASSPHRASE", "PULUMI_CONFIG_PASSPHRASE_FILE"])
def test_a_persons_own_passphrase_stays_in_charge(
    stack: Stack, root: Path, said: list[str], monkeypatch: pytest.MonkeyPatch, variable: str
) -> None:
    monkeypatch.setenv(variable, "/theirs")
    stack.ensure(said.append)
    assert not (root / PASSPHRASE).exists()
    assert environment(stack.tools, root).get("PULUMI_CONFIG_PASSPHRASE_FILE") in (None, "/theirs")


@pytest.mark.parametrize("left", ["state", "settings"])
def test_a_lost_passphrase_is_not_replaced(stack: Stack, root: Path, said: list[str], left: str) -> None:
    if left == "state":
        state = root / ".pulumi-state" / ".pulumi" / "stacks" / "mlops-stack"
        state.mkdir(parents=True)
        (state / "dev.json").write_text("{}")
    else:
        (root / "Pulumi.dev.yaml").write_text("encryptionsalt: v1:abc=\nconfig: {}\n")
    with pytest.raises(Problem, match=r"\.pulumi-passphrase is missing"):
        stack.ensure(said.append)
    assert not (root / PASSPHRASE).exists()


def test_another_backend_needs_no_folder(
    stack: Stack, root: Path, said: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PULUMI_BACKEND_URL", "s3://states")
    stack.ensure(said.append)
    assert state_folder(root) is None
    assert not (root / ".pulumi-state").exists()


def test_a_missing_stack_is_made_and_any_other_failure_told(
    stack: Stack, pulumi: Program, said: list[str]
) -> None:
    pulumi.answers("stack select", code=6, err="error: no stack named 'dev' found")
    pulumi.answers("stack init", code=1, err="error: the disk is full")
    with pytest.raises(Problem, match="the disk is full"):
        stack.ensure(said.append)
    assert pulumi.calls[1].startswith("stack init --non-interactive --stack dev")


def test_a_stack_that_is_to_go_is_not_made(stack: Stack, pulumi: Program, said: list[str]) -> None:
    pulumi.answers("stack select", code=6, err="error: no stack named 'dev' found")
    with pytest.raises(Problem, match="there is no stack called dev"):
        stack.ensure(said.append, make=False)
    assert not any(call.startswith("stack init") for call in pulumi.calls)


@pytest.mark.parametrize(
    ("name", "arguments", "command"),
    [
        ("dev", [], "make restore"),
        ("dev", ["/a/b", "--replace"], "make restore ARGS='/a/b --replace'"),
        ("dev", ["/a b", "--replace"], """make restore ARGS="'/a b' --replace\""""),
        ("team-a", ["/a/b"], "make restore STACK=team-a ARGS=/a/b"),
    ],
)
def test_commands_are_told_as_a_person_gives_them(name: str, arguments: list[str], command: str) -> None:
    assert Stack(name).make("restore", *arguments) == command


def test_a_folder_with_a_blank_survives_both_shells(tmp_path: Path) -> None:
    (tmp_path / "Makefile").write_text("restore:\n\t@printf '%s|' $(ARGS)\n")
    command = Stack().make("restore", "/my stacks/it's", "--replace")
    printed = subprocess.run(command, shell=True, cwd=tmp_path, capture_output=True, text=True, check=True)
    assert printed.stdout == "/my stacks/it's|--replace|"


def test_secrets_go_by_standard_input(stack: Stack, pulumi: Program) -> None:
    stack.set_config("mlflowUsers[0].password", "hush-hush-hush", secret=True)
    assert pulumi.secrets == ["hush-hush-hush"]
    assert "hush" not in pulumi.calls[0]
    assert "--path" in pulumi.calls[0].split()


@pytest.mark.parametrize("value", ["123456789012", "true"])
def test_a_secret_that_pulumi_would_store_as_a_number_is_refused(
    stack: Stack, pulumi: Program, value: str
) -> None:
    with pytest.raises(Problem, match="digits only") as refused:
        stack.set_config("mlflowUsers[0].password", value, secret=True)
    assert value not in str(refused.value).replace("true or false", "")
    assert pulumi.calls == []


@pytest.mark.parametrize(
    ("path", "value", "wanted"),
    [
        ("mlflowUsers[0].name", "-12", "--path --type string --stack dev -- -12"),
        ("mlflowUsers[0].adopt", "true", "--path --stack dev -- true"),
        ("langfuseEnabled", "false", "--stack dev -- false"),
    ],
)
def test_values_keep_their_type(stack: Stack, pulumi: Program, path: str, value: str, wanted: str) -> None:
    stack.set_config(path, value)
    assert pulumi.calls == [f"config set mlops-stack:{path} --non-interactive {wanted}"]


def test_settings_are_read(stack: Stack, pulumi: Program) -> None:
    pulumi.answers(
        "config get mlops-stack:mlflowUsers", {"value": "[...]", "objectValue": [{"name": "alice"}]}
    )
    pulumi.answers(
        "config get mlops-stack:nope", code=1, err="error: configuration key 'nope' not found for stack 'dev'"
    )
    assert stack.get_config("mlflowUsers") == [{"name": "alice"}]
    assert stack.get_config("nope") is None


@pytest.mark.parametrize("text", ["  mlops-stack:langfuseEnabled: false\n", '  "langfuseEnabled": true\n'])
def test_a_persons_setting_is_told_from_the_default(stack: Stack, text: str) -> None:
    assert not stack.sets("langfuseEnabled")
    stack.config_file.write_text(f"config:\n  mlops-stack:langfuseEnabledX: 1\n{text}")
    assert stack.sets("langfuseEnabled")


def test_outputs_of_what_is_not_deployed(stack: Stack, pulumi: Program) -> None:
    pulumi.answers("stack output", {})
    with pytest.raises(Problem, match="not deployed"):
        stack.outputs()
    pulumi.answers("stack output", code=6, err="error: no stack named 'dev' found")
    with pytest.raises(Problem, match="no stack called dev"):
        stack.outputs()
    pulumi.answers("stack output", {"mlflowUrl": "http://localhost:5000"})
    assert stack.outputs() == {"mlflowUrl": "http://localhost:5000"}
