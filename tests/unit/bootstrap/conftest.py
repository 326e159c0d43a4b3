"""Programs of our own making in place of docker and pulumi, which write down how they were called."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from scripts.bootstrap.stack import Stack
from scripts.bootstrap.tools import Tools

_PROGRAM = """\
#!{python} -IS
import json, os, pathlib, sys
me = pathlib.Path(__file__)
given = "" if "--secret" not in sys.argv else sys.stdin.read()
with me.with_suffix(".calls").open("a") as calls:
    calls.write(json.dumps([sys.argv[1:], given]) + "\\n")
answers = json.loads(me.with_suffix(".answers").read_text())
for asked, code, out, err in answers:
    if " ".join(sys.argv[1:]).startswith(asked):
        sys.stdout.write(out)
        sys.stderr.write(err)
        sys.exit(code)
"""


@dataclass
class Program:
    """A program on PATH. What it was not told to answer succeeds without a word."""

    path: Path

    def answers(self, asked: str, out: Any = "", *, code: int = 0, err: str = "") -> None:
        """Answer calls whose arguments begin like this; what was told last goes first."""
        text = out if isinstance(out, str) else json.dumps(out)
        told = json.loads(self._told.read_text())
        self._told.write_text(json.dumps([[asked, code, text, err], *told]))

    @property
    def _told(self) -> Path:
        return self.path.with_suffix(".answers")

    @property
    def calls(self) -> list[str]:
        """The arguments of all calls, in order."""
        return [" ".join(arguments) for arguments, _ in self._log()]

    @property
    def secrets(self) -> list[str]:
        """What came by standard input."""
        return [given for _, given in self._log() if given]

    def _log(self) -> list[Any]:
        log = self.path.with_suffix(".calls")
        return [json.loads(line) for line in log.read_text().splitlines()] if log.exists() else []


@pytest.fixture
def bin_dir(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", f"{folder}:/usr/bin:/bin")
    return folder


@pytest.fixture
def program(bin_dir: Path) -> Callable[[str], Program]:
    def make(name: str) -> Program:
        path = bin_dir / name
        path.write_text(_PROGRAM.format(python=sys.executable))
        path.chmod(0o755)
        path.with_suffix(".answers").write_text("[]")
        return Program(path)

    return make


@pytest.fixture
def docker(program: Callable[[str], Program]) -> Program:
    return program("docker")


@pytest.fixture
def pulumi(program: Callable[[str], Program]) -> Program:
    return program("pulumi")


@pytest.fixture(autouse=True)
def _own_surroundings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (
        "PULUMI_BACKEND_URL",
        "PULUMI_CONFIG_PASSPHRASE",
        "PULUMI_CONFIG_PASSPHRASE_FILE",
        "PULUMI_HOME",
        "MLOPS_STACK_TOOLS",
        "MLOPS_STACK_INSTALL_ENGINE",
        "DOCKER_HOST",
        "STACK",
    ):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("MLOPS_STACK_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("HOME", str(tmp_path / "home"))


@pytest.fixture
def said() -> list[str]:
    return []


OURS, OTHERS = "a1", "b2"
IDENTITY = {
    "urn": "urn:pulumi:dev::mlops-stack::mlops-stack:components:Site$random:index/randomId:RandomId::identity",
    "type": "random:index/randomId:RandomId",
    "outputs": {"hex": OURS},
}


def container(name: str, *, identity: str = OURS, **state: Any) -> dict[str, Any]:
    once = state.pop("run_once", False)
    return {
        "Id": f"id-of-{name}",
        "Name": f"/{name}",
        "Image": "sha256:0",
        "Config": {
            "Labels": {
                "mlops-stack.stack": "mlops-stack/dev",
                "mlops-stack.id": identity,
                "mlops-stack.service": name,
            }
        },
        "HostConfig": {"RestartPolicy": {"Name": "no" if once else "unless-stopped"}},
        "State": {"Status": "running", "ExitCode": 0, **state},
    }


@pytest.fixture
def stack(tmp_path: Path, pulumi: Program) -> Stack:
    (tmp_path / "checkout").mkdir()
    return Stack("dev", Tools(pulumi.path.parent, {}, "a test's"), tmp_path / "checkout")


@pytest.fixture
def engine_has(docker: Program) -> Callable[..., None]:
    def has(*containers: dict[str, Any]) -> None:
        docker.answers("ps", "\n".join(item["Id"] for item in containers))
        docker.answers("inspect", list(containers))

    return has
