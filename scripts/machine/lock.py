"""Builds that parallel calls make once."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from fcntl import LOCK_EX, LOCK_NB, flock
from pathlib import Path

from scripts.machine.processes import Say


@contextmanager
def held(file: Path, what: str, say: Say) -> Iterator[None]:
    """Held while something is built. `what` is named to whoever has to wait for it.

    What runs meanwhile inherits it, if started with `close_fds=False`: a step that outlives a killed build still keeps the
    next build out.
    """
    with file.open("w") as lock:
        os.set_inheritable(lock.fileno(), True)
        try:
            flock(lock, LOCK_EX | LOCK_NB)
        except BlockingIOError:
            say(f"{what}: waiting for the process that is building it")
            flock(lock, LOCK_EX)
        yield
