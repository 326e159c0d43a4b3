"""The project's virtual environment, made of requirements.txt (and requirements-dev.txt, for the tests)."""

from __future__ import annotations

import hashlib
import json
import os
import sys
from pathlib import Path

from scripts.bootstrap import debian
from scripts.bootstrap.paths import ROOT
from scripts.bootstrap.problems import Problem
from scripts.bootstrap.processes import Say, ask, foreground

OLDEST = (3, 10)
FOLDER = ".venv"
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
    python = python_of(root)
    if not _serves(python):
        _make(root / FOLDER, say)
    stamp = root / FOLDER / _STAMP
    installed: dict[str, str] = json.loads(stamp.read_text()) if stamp.is_file() else {}
    for name in (_RUN, *([_DEVELOP] if develop else [])):
        wanted = _key(root / name, root / _RUN)
        if installed.get(name) != wanted:
            _install(python, root / name, say)
            installed[name] = wanted
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
    say(f"Python: installing {requirements.name} into {FOLDER}")
    command = [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "-r", str(requirements)]
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
