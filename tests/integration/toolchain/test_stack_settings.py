"""Making a stack and its settings, by the real Pulumi."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

import pytest

from scripts.bootstrap import tools
from scripts.bootstrap.stack import PASSPHRASE, Stack
from scripts.machine.paths import ROOT
from scripts.machine.problems import Problem


@pytest.fixture
def stack(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Stack:
    """A stack of a project like ours, whose settings came with the checkout."""
    for name in ("PULUMI_CONFIG_PASSPHRASE", "PULUMI_CONFIG_PASSPHRASE_FILE", "PULUMI_BACKEND_URL"):
        monkeypatch.delenv(name, raising=False)
    shutil.copy(ROOT / "Pulumi.yaml", tmp_path)
    (tmp_path / "Pulumi.dev.yaml").write_text("config:\n  mlops-stack:mlflowPort: 5001\n")
    made = Stack("dev", tools.ensure(Path(sys.executable), lambda line: None), tmp_path)
    made.ensure(lambda line: None)
    return made


def test_settings_come_back_as_they_were_written(stack: Stack) -> None:
    password = "secret-of-alice"  # a test's
    stack.set_config("mlflowUsers[0].name", "0123")
    stack.set_config("mlflowUsers[0].admin", "true")
    stack.set_config("mlflowUsers[0].password", password, secret=True)
    stack.set_config('mlflowUsers[0].experiments["a.b [c]"]', "READ")
    stack.set_config("mlflowAdminPassword", "-a secret that looks like a flag", secret=True)
    stack.set_config('images["langfuse-web"]', "mlops-stack-airgap/langfuse-double-web:1")

    assert stack.get_config("mlflowUsers") == [
        {"name": "0123", "admin": True, "password": password, "experiments": {"a.b [c]": "READ"}}
    ]
    assert stack.get_config("mlflowAdminPassword") == "-a secret that looks like a flag"
    assert stack.get_config("no-such-setting") is None
    config = stack.config()
    assert config["images"] == {"langfuse-web": "mlops-stack-airgap/langfuse-double-web:1"}
    assert str(config["mlflowPort"]) == "5001"  # what was there stayed
    assert "mlflowUsers" not in config  # it has a secret in it
    assert (stack.sets("mlflowPort"), stack.sets("langfusePort")) == (True, False)
    text = stack.config_file.read_text()
    assert password not in text
    assert "looks like a flag" not in text


def test_a_stack_is_made_once_and_its_passphrase_is_asked_for_when_it_is_lost(stack: Stack) -> None:
    stack.set_config("mlflowAdminPassword", "a-password-of-a-test", secret=True)
    stack.ensure(lambda line: None)
    with pytest.raises(Problem, match="not deployed"):
        stack.outputs()
    with pytest.raises(Problem, match="no stack called other"):
        Stack("other", stack.tools, stack.root).outputs()

    (stack.root / PASSPHRASE).write_text("another one\n")
    with pytest.raises(Problem, match="the passphrase does not fit"):
        stack.get_config("mlflowAdminPassword")
    (stack.root / PASSPHRASE).unlink()
    with pytest.raises(Problem, match="is missing"):
        stack.ensure(lambda line: None)
