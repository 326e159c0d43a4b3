"""python3 -m airgap.toolchain NAME...: builds the named parts where they are missing and prints their paths."""

from __future__ import annotations

import argparse

from airgap.toolchain import PARTS, ensure
from scripts.machine.processes import end


def main() -> int:
    parser = argparse.ArgumentParser(prog="python3 -m airgap.toolchain", description=__doc__)
    parser.add_argument("names", nargs="+", metavar="NAME", help=", ".join(PARTS))
    arguments = parser.parse_args()
    if unknown := [name for name in arguments.names if name not in PARTS]:
        # Before the first is built, which takes minutes.
        parser.error(f"the toolchain has no part called {unknown[0]!r}; name some of: {', '.join(PARTS)}")
    for name in arguments.names:
        print(name, ensure(name), flush=True)
    return 0


if __name__ == "__main__":
    end(main)
