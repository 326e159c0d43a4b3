"""The project's virtual environment, made of requirements.txt (and requirements-dev.txt, for the tests)."""

from __future__ import annotations

import hashlib
import json
import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from scripts.machine import debian
from scripts.machine.paths import ROOT
from scripts.machine.problems import Problem
from scripts.machine.processes import Say, ask, foreground

OLDEST = (3, 10)
FOLDER = ".venv"
CLIENTS_FOLDER = ".venv-clients"
_RUN, _DEVELOP = "requirements.txt", "requirements-dev.txt"
_STAMP = "mlops-stack.json"


def ensure(say: Say, *, develop: bool = False, root: Path = ROOT) -> Path:
    """The environment's Python, after making the environment and installing what is missing.

    A stamp tells which requirements were installed for which Python; without it, pip goes on from what is there.
    """
    if sys.version_info < OLDEST:
        raise Problem(
            f"this Python is {sys.version_info.major}.{sys.version_info.minor}, and 3.10 or newer is needed",
            "make PYTHON=/path/to/a/newer/python3 ...",
        )
    names = (_RUN, *([_DEVELOP] if develop else []))
    return _ready(root / FOLDER, {root / name: (root / name, root / _RUN) for name in names}, say)


def ensure_clients(say: Say, root: Path = ROOT) -> Path:
    """The Python of the tests' clients, an environment apart: they and Pulumi do not agree on their dependencies."""
    requirements = root / "tests" / "clients.txt"
    made_of = (requirements, root / "examples" / "requirements.txt")
    return _ready(root / CLIENTS_FOLDER, {requirements: made_of}, say)


def _ready(folder: Path, wanted: Mapping[Path, Sequence[Path]], say: Say) -> Path:
    """The Python of an environment with the wanted requirements, each given with the files that it is made of."""
    python = folder / "bin" / "python"
    if not _serves(python):
        _make(folder, say)
    stamp = folder / _STAMP
    installed: dict[str, str] = json.loads(stamp.read_text()) if stamp.is_file() else {}
    for requirements, made_of in wanted.items():
        key = _key(*made_of)
        if installed.get(requirements.name) != key:
            _install(python, requirements, say)
            installed[requirements.name] = key
            _write(stamp, installed)
    return python


def python_of(root: Path = ROOT) -> Path:
    """Where the environment's Python is, or will be."""
    return root / FOLDER / "bin" / "python"


def _serves(python: Path) -> bool:
    """Whether it starts, has pip, and is of the version that makes it."""
    answer = ask([str(python), "-c", "import pip, sys; print(sys.version)"])
    return answer.code == 0 and answer.out.strip() == sys.version.strip()


def _make(folder: Path, say: Say) -> None:
    say(f"Python: making {folder.name} with Python {sys.version.split()[0]}")
    command = [sys.executable, "-m", "venv", "--clear", str(folder)]
    done = ask(command)
    if done.code and "ensurepip" in done.out + done.err and debian.is_ours():
        debian.install(["python3-venv"], say)
        done = ask(command)
    if done.code:
        raise Problem(
            f"making {folder} failed: {done.reason}",
            "install Python's venv module (Debian: apt-get install python3-venv), and run it again",
        )


def _install(python: Path, requirements: Path, say: Say) -> None:
    if not requirements.is_file():
        raise Problem(f"{requirements} is missing", "run this in a complete checkout")
    say(f"Python: installing {requirements.name} into {python.parents[1].name}")
    command = [
        str(python),
        "-m",
        "pip",
        "install",
        "--quiet",
        "--disable-pip-version-check",
        "-r",
        str(requirements),
    ]
    if foreground(command, cwd=requirements.parent, environment={**os.environ, "PIP_USER": "0"}):
        raise Problem(
            f"installing {requirements.name} failed, see above",
            "check the package index (PIP_INDEX_URL, pip.conf) and run it again: it goes on from what it has",
        )


def _key(*files: Path) -> str:
    digest = hashlib.sha256(sys.version.encode())
    for file in files:
        digest.update(file.read_bytes() if file.is_file() else b"")
    return digest.hexdigest()


def _write(stamp: Path, content: dict[str, str]) -> None:
    fresh = stamp.with_suffix(".new")
    fresh.write_text(json.dumps(content))
    fresh.replace(stamp)
