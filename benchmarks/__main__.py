"""python -m benchmarks [NAME...]: what `make bench` runs. Prints Markdown; ratios compare within the run only."""

from __future__ import annotations

import argparse
import io
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import redirect_stdout
from typing import TextIO

from benchmarks import auth, deploy, growth, memory, tracking, users
from benchmarks.report import DOCUMENT, machine
from scripts.machine.paths import ROOT

BENCHMARKS: Mapping[str, tuple[str, Callable[[], object]]] = {
    "deploy": ("Deploying: Pulumi against docker compose", deploy.main),
    "memory": ("Memory: the stack against the images' defaults", memory.main),
    "mlflow": ("MLflow's server", tracking.main),
    "auth": ("Authentication: requests per second", auth.main),
    "users": ("Teams: users and permissions", users.main),
    "growth": ("Growth: several stacks on one engine", growth.main),
}
# What a change of the components may make worse, in about twelve minutes.
SHORT = ("deploy", "mlflow")


class Tee(io.TextIOBase):
    """What is written to it, both shown at once and kept."""

    def __init__(self, shown: TextIO) -> None:
        self.shown = shown
        self.kept = io.StringIO()

    def write(self, text: str) -> int:
        self.shown.write(text)
        return self.kept.write(text)

    def flush(self) -> None:
        self.shown.flush()


def run(name: str) -> str:
    """One benchmark's section."""
    title, measure = BENCHMARKS[name]
    tee = Tee(sys.stdout)
    with redirect_stdout(tee):
        print(f"## {title}\n\n`make bench ARGS={name}`: {machine()}\n")
        measure()
    return tee.kept.getvalue().strip()


def put(document: str, name: str, section: str) -> str:
    """The document with a benchmark's measured part in place of the one it had."""
    begin, end = f"<!-- measured {name}: begin -->", f"<!-- measured {name}: end -->"
    block = f"{begin}\n{section}\n{end}"
    pattern = re.compile(f"{re.escape(begin)}.*?{re.escape(end)}", re.DOTALL)
    if pattern.search(document):
        return pattern.sub(lambda _: block, document)
    return f"{document.rstrip()}\n\n{block}\n"


def main(arguments: Sequence[str]) -> None:
    """Run what is named."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument(
        "names",
        nargs="*",
        metavar="NAME",
        help=f"{', '.join(BENCHMARKS)} or all (default: {' '.join(SHORT)})",
    )
    parser.add_argument(
        "--write", action="store_true", help=f"put the tables into {DOCUMENT.relative_to(ROOT)}"
    )
    given = parser.parse_args(arguments)
    if unknown := [name for name in given.names if name not in (*BENCHMARKS, "all")]:
        parser.error(f"there is no benchmark called {unknown[0]}; name some of: {', '.join(BENCHMARKS)}, all")
    for name in BENCHMARKS if "all" in given.names else given.names or SHORT:
        section = run(name)
        if given.write:
            DOCUMENT.write_text(put(DOCUMENT.read_text(), name, section))


if __name__ == "__main__":
    main(sys.argv[1:])
