"""`make` itself, on a copy of the checkout: interrupted by Ctrl-C, gone on with, and undone."""

from __future__ import annotations

import json
import os
import secrets
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from scripts.machine.paths import ROOT
from tests.conditions import free_port, until
from tests.deployment import OnEngine

_COPIED = ("Pulumi.yaml", "__main__.py", "components", "images", "scripts", "airgap", "Makefile")
_COPIED_FILES = ("requirements.txt", "requirements-dev.txt")


@dataclass
class Checkout(OnEngine):
    """A copy of the program, with a stack whose names begin with `prefix`."""

    folder: Path
    environment: Mapping[str, str]
    prefix: str = field(default_factory=lambda: f"t-{secrets.token_hex(3)}-")
    stack: str = field(default_factory=lambda: f"t{secrets.token_hex(3)}")

    def start(self, command: str, *arguments: str) -> subprocess.Popen[str]:
        """What `make COMMAND` calls, in a process group of its own as in a shell."""
        return subprocess.Popen(
            [sys.executable, "-m", "scripts.bootstrap", command, *arguments],
            cwd=self.folder,
            env={**self.environment, "STACK": self.stack},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )

    def make(self, command: str, *arguments: str) -> str:
        """The command to its end; what it printed."""
        process = self.start(command, *arguments)
        printed, _ = process.communicate(timeout=600)
        assert process.returncode == 0, printed
        return printed

    def locks(self) -> list[Path]:
        return list((self.folder / ".pulumi-state").rglob("locks/**/*.json"))

    def configure(self, **settings: object) -> None:
        """Settings beside those that every copy has."""
        file = self.folder / f"Pulumi.{self.stack}.yaml"
        lines = "".join(f"  mlops-stack:{key}: {json.dumps(value)}\n" for key, value in settings.items())
        file.write_text(file.read_text() + lines)


@pytest.fixture
def checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Checkout]:
    for name in ("PULUMI_BACKEND_URL", "PULUMI_CONFIG_PASSPHRASE", "PULUMI_CONFIG_PASSPHRASE_FILE"):
        monkeypatch.delenv(name, raising=False)
    for name in _COPIED:
        source, target = ROOT / name, tmp_path / name
        shutil.copytree(source, target) if source.is_dir() else shutil.copy(source, target)
    for name in _COPIED_FILES:
        shutil.copy(ROOT / name, tmp_path / name)
    (tmp_path / ".venv").symlink_to(ROOT / ".venv")
    made = Checkout(tmp_path, dict(os.environ))
    ports = {key: free_port() for key in ("mlflowPort", "langfusePort", "langfuseMinioPort")}
    settings = {"namePrefix": made.prefix, **ports}
    lines = "".join(f"  mlops-stack:{key}: {value}\n" for key, value in settings.items())
    (tmp_path / f"Pulumi.{made.stack}.yaml").write_text(f"config:\n{lines}")
    yield made
    made.remove()


def test_ctrl_c_ends_it_in_order_and_the_same_command_goes_on(checkout: Checkout) -> None:
    process = checkout.start("up")
    try:
        until(checkout.containers, "the first container")
        os.killpg(process.pid, signal.SIGINT)
        printed, _ = process.communicate(timeout=120)
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
    assert process.returncode == 130, printed
    assert f"interrupted; `make up STACK={checkout.stack}` goes on from here" in printed
    assert checkout.locks() == []

    printed = checkout.make("up")
    assert "log in as admin" in printed
    assert "mlflow-server" in checkout.make("status")
    printed = checkout.make("destroy")
    assert "Kept, with the secrets that unlock them" in printed
    assert "log in as admin" in checkout.make("up")
    checkout.make("destroy", "--delete-data")
    assert checkout.left_over() == []


@pytest.mark.thorough
def test_a_large_team_that_is_cut_short_is_gone_on_with(checkout: Checkout) -> None:
    held = {"experiments": {"0": "READ", "churn": "EDIT"}, "models": {"scores": "READ"}}
    checkout.configure(mlflowUsers=[{"name": f"user-{number:03}", **held} for number in range(60)])
    process = checkout.start("up")
    assert process.stdout
    try:
        # In the middle of the team.
        until(
            lambda: "user-030" in (process.stdout.readline() if process.stdout else ""), "a user", seconds=300
        )
        os.killpg(process.pid, signal.SIGKILL)
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    began = time.monotonic()
    checkout.make("up")
    went_on = time.monotonic() - began
    checkout.make("up", "--expect-no-changes")
    began = time.monotonic()
    assert "forgetting" in checkout.make("destroy", "--delete-data")
    print(f"went on in {went_on:.1f} s, destroyed in {time.monotonic() - began:.1f} s")
    assert checkout.left_over() == []
