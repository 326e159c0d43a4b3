"""What all benchmarks share: the machine and the moment, tables, and a stack to measure."""

from __future__ import annotations

import os
import platform
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from airgap.images import RECIPES, ensure
from scripts.machine.paths import ROOT
from tests.deployment import Deployment, deployment, pulumi_environment

DOCUMENT = ROOT / "docs" / "benchmarks.md"


def machine() -> str:
    """What it is measured on, and of what commit."""
    cpu = next(
        (line.partition(":")[2].strip() for line in _lines("/proc/cpuinfo") if line.startswith("model name")),
        platform.processor() or platform.machine(),
    )
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1024**3
    engine = _said("docker", "version", "--format", "{{.Server.Version}}")
    driver = _said("docker", "info", "--format", "{{.Driver}}")
    # Whether the tables written before this one changed the document says nothing about what is measured.
    changed = (
        "git",
        "status",
        "--porcelain",
        "--untracked-files=no",
        "--",
        ".",
        f":(exclude){DOCUMENT.relative_to(ROOT)}",
    )
    dirty = " with changes" if _said(*changed) else ""
    return (
        f"{time.strftime('%Y-%m-%d')}, commit {_said('git', 'rev-parse', '--short', 'HEAD')}{dirty}. {os.cpu_count()} cores of {cpu}, "
        f"{memory:.0f} GiB of memory, Linux {platform.release()}, Docker engine {engine} on {driver}; "
        f"load {os.getloadavg()[0]:.1f} before the run."
    )


def _lines(path: str) -> list[str]:
    file = Path(path)
    return file.read_text().splitlines() if file.is_file() else []


def _said(*command: str) -> str:
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    return done.stdout.strip()


def table(heads: Iterable[str], rows: Iterable[Iterable[object]]) -> None:
    """Print a Markdown table; all columns but the first hold numbers."""
    heads = list(heads)
    print(f"| {' | '.join(heads)} |")
    print(f"| --- |{' ---: |' * (len(heads) - 1)}")
    for row in rows:
        print(f"| {' | '.join(str(cell) for cell in row)} |", flush=True)
    print(flush=True)


def seconds(action: Callable[[], object]) -> float:
    """How long an action takes."""
    began = time.monotonic()
    action()
    return time.monotonic() - began


@contextmanager
def a_stack(**settings: Any) -> Iterator[Deployment]:
    """A stack of all twelve containers on free ports, not yet deployed; nothing of it stays."""
    images = ensure(RECIPES)
    with (
        tempfile.TemporaryDirectory(prefix="mlops-stack-bench-") as folder,
        deployment(Path(folder) / "stack", pulumi_environment(), images=images, **settings) as made,
    ):
        yield made
