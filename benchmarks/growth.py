"""Stacks on one engine: what the next one costs in time, memory and idle processor time, when others are there.

Run it with `python -m benchmarks growth`. Every stack has all twelve containers.
"""

from __future__ import annotations

from contextlib import ExitStack

from benchmarks.memory import idle_cores, usage
from benchmarks.report import a_stack, seconds, table
from scripts.bootstrap.commands import DESTROY
from scripts.machine.processes import say
from tests.deployment import Deployment

COUNTS = (1, 5, 10)
_IDLE_SECONDS = 30.0


def main() -> None:
    """Measure and print."""
    rows = []
    with ExitStack() as held:
        stacks: list[Deployment] = []
        while len(stacks) < COUNTS[-1]:
            stack = held.enter_context(a_stack())
            fresh = seconds(lambda stack=stack: stack.up().ok())  # type: ignore[misc]
            stacks.append(stack)
            say(f"stack {len(stacks)}: {fresh:.1f} s")
            if len(stacks) in COUNTS:
                unchanged = seconds(lambda stack=stack: stack.up("--expect-no-changes").ok())  # type: ignore[misc]
                memory = sum(sum(usage(one).values()) for one in stacks)
                rows.append(
                    (len(stacks), fresh, unchanged, memory, idle_cores(*stacks, seconds=_IDLE_SECONDS))
                )
        gone = [seconds(lambda stack=stack: stack.pulumi(*DESTROY).ok()) for stack in reversed(stacks)]  # type: ignore[misc]
    first = rows[0]
    print("The last stack's deployment, and all stacks together; ratios to one stack alone.\n")
    table(
        (
            "stacks",
            "fresh s",
            "ratio",
            "no change s",
            "ratio",
            "MiB",
            "for each",
            "cores when idle",
            "for each",
        ),
        (
            (
                count,
                f"{fresh:.1f}",
                f"{fresh / first[1]:.2f}",
                f"{unchanged:.1f}",
                f"{unchanged / first[2]:.2f}",
                f"{memory:.0f}",
                f"{memory / count:.0f}",
                f"{cores:.2f}",
                f"{cores / count:.2f}",
            )
            for count, fresh, unchanged, memory, cores in rows
        ),
    )
    print(f"Destroyed, the first with ten there and the last alone: {gone[0]:.1f} s and {gone[-1]:.1f} s.\n")


if __name__ == "__main__":
    main()
