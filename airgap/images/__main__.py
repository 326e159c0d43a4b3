"""python3 -m airgap.images NAME...: builds the images that are missing and prints their references."""

from __future__ import annotations

import argparse

from airgap.images import RECIPES, ensure
from scripts.machine.processes import end


def main() -> int:
    parser = argparse.ArgumentParser(prog="python3 -m airgap.images", description=__doc__)
    parser.add_argument("names", nargs="+", metavar="NAME", help=", ".join(RECIPES))
    parser.add_argument("--rebuild", action="store_true", help="build again from today's packages")
    arguments = parser.parse_args()
    for name, reference in ensure(arguments.names, rebuild=arguments.rebuild).items():
        print(name, reference)
    return 0


if __name__ == "__main__":
    end(main)
