"""Keeps the time of a program with many resources linear in their number."""

from __future__ import annotations

import asyncio

import pulumi

# A registration is a task that starts a task that starts the call.
_TURNS = 3


def begin_before_waiting() -> None:
    """Call it once, last, in a program that may declare hundreds of resources.

    Pulumi's Python SDK waits for the calls that have begun, and then for every output one after another, each time going through
    all of them. When a program ends no call has begun yet, so it would go on to the outputs at once, and the time for each of
    them would grow with their number. A few turns of the event loop let all calls begin.
    """

    async def turns() -> None:
        for _ in range(_TURNS):
            await asyncio.sleep(0)

    pulumi.run(turns)
