"""What tests wait for, and what has to be free for them."""

from __future__ import annotations

import secrets
import socket
import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")
PATIENCE_SECONDS = 60


def until(condition: Callable[[], T | None], what: str, seconds: float = PATIENCE_SECONDS) -> T:
    """The first answer that is something; `what` never came otherwise."""
    deadline = time.monotonic() + seconds
    while True:
        if answer := condition():
            return answer
        assert time.monotonic() < deadline, f"never seen: {what}"
        time.sleep(0.2)


def free_port() -> int:
    """A port below the ephemeral range that nobody listens on."""
    while True:
        port = 10000 + secrets.randbelow(22000)
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)):
                return port
