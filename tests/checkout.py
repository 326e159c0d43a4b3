"""A copy of the checkout for tests of `make` itself."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from scripts.bootstrap.stack import Stack
from scripts.machine.paths import ROOT
from tests.deployment import OnEngine, free_ports

_COPIED = (
    *("Pulumi.yaml", "__main__.py", "components", "images", "scripts", "airgap", "Makefile"),
    *("requirements.txt", "requirements-dev.txt"),
)


class Checkout(OnEngine):
    """A copy of the program, with a stack whose names begin with `prefix`."""

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

    def outputs(self) -> dict[str, Any]:
        return Stack(self.stack, root=self.folder).outputs()

    def locks(self) -> list[Path]:
        return list((self.folder / ".pulumi-state").rglob("locks/**/*.json"))

    def configure(self, **settings: object) -> None:
        """Settings beside those that it has."""
        lines = "".join(f"  mlops-stack:{key}: {json.dumps(value)}\n" for key, value in settings.items())
        self.settings.write_text(self.settings.read_text() + lines)


@contextmanager
def checkout(folder: Path) -> Iterator[Checkout]:
    """A copy in the folder, with a stack on free ports; nothing of it stays."""
    for name in _COPIED:
        source, target = ROOT / name, folder / name
        shutil.copytree(source, target) if source.is_dir() else shutil.copy(source, target)
    (folder / ".venv").symlink_to(ROOT / ".venv")
    made = Checkout(folder, dict(os.environ))
    made.settings.write_text("config:\n")
    made.configure(namePrefix=made.prefix, **free_ports())
    try:
        yield made
    finally:
        made.remove()
