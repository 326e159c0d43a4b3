"""What may be installed with apt-get: on a Debian-like system, as root, and nowhere else."""

from __future__ import annotations

import os
import shutil
from collections.abc import Sequence
from pathlib import Path

from scripts.machine.paths import cache_dir
from scripts.machine.problems import Problem
from scripts.machine.processes import Answer, Say, logged

_OS_RELEASE = Path("/etc/os-release")
_OPTIONS = ("-q", "-o", "DPkg::Lock::Timeout=300")


def is_ours() -> bool:
    """Whether this is a Debian-like system on which we are root."""
    return os.geteuid() == 0 and is_debian_like() and shutil.which("apt-get") is not None


def is_debian_like(os_release: Path = _OS_RELEASE) -> bool:
    """Whether the system calls itself Debian, or like it."""
    if not os_release.is_file():
        return False
    pairs = (
        line.partition("=") for line in os_release.read_text(encoding="utf-8", errors="replace").splitlines()
    )
    said = {key: value.strip("\"'") for key, _, value in pairs}
    return "debian" in f"{said.get('ID', '')} {said.get('ID_LIKE', '')}".split()


def install(packages: Sequence[str], say: Say) -> None:
    """Install packages; the package index is fetched only where the one that is there does not serve."""
    log = cache_dir() / "apt.log"
    say(f"apt-get: installing {', '.join(packages)} (log: {log})")
    if _get(["install", "-y", "--no-install-recommends", *packages], log).code == 0:
        return
    _get(["update"], log)
    done = _get(["install", "-y", "--no-install-recommends", *packages], log)
    if done.code:
        raise Problem(
            f"`apt-get install {' '.join(packages)}` failed:\n{done.reason}",
            f"see {log}; check the package mirror in /etc/apt, install the packages by hand, and run it again",
        )


def _get(arguments: Sequence[str], log: Path) -> Answer:
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    return logged(["apt-get", *_OPTIONS, *arguments], log, environment=environment)
