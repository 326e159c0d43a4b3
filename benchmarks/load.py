"""Clients that ask a server again and again."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

import requests


def drive(
    action: Callable[[requests.Session], None], clients: int, seconds: float
) -> tuple[list[float], float]:
    """Each client does it again and again; latencies, and the time that all took."""
    latencies: list[float] = []
    failures: list[Exception] = []
    end = time.monotonic() + seconds

    def client() -> None:
        with requests.Session() as session:
            while time.monotonic() < end and not failures:
                began = time.monotonic()
                try:
                    action(session)
                except Exception as error:
                    failures.append(error)
                    return
                latencies.append(time.monotonic() - began)

    began = time.monotonic()
    threads = [threading.Thread(target=client) for _ in range(clients)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if failures:
        raise SystemExit(f"A request failed: {failures[0]}")
    return latencies, time.monotonic() - began
