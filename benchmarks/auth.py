"""Authenticated requests per second: MLflow 3.4.0 as published, this project's server, and a server without auth.

Run it with `python -m benchmarks.auth [SECONDS]` where a Docker engine answers. It prints a table; ratios compare within the run only.
All three run the same image with one worker and as many threads, against the same databases.
"""

from __future__ import annotations

import statistics
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import requests

from airgap.images import ensure
from benchmarks.load import drive
from tests.conditions import free_port
from tests.integration.mlflow_image.stack import Stack

CLIENTS = (1, 8, 64)
# The servers take turns, so that what else the machine does falls on all of them.
ROUNDS = 3
THREADS = 8
_GUNICORN = (
    "gunicorn",
    "--bind",
    "0.0.0.0:5000",
    "--workers",
    "1",
    "--threads",
    str(THREADS),
    "--worker-class",
    "gthread",
)


@dataclass(frozen=True)
class Result:
    """What one server did for a number of clients."""

    rate: float
    p50: float
    p99: float


def result(latencies: list[float], took: float) -> Result:
    """The figures of all rounds together."""
    ordered = sorted(latencies)
    return Result(len(ordered) / took, statistics.median(ordered), ordered[int(len(ordered) * 0.99)])


def measure(
    url: str, auth: tuple[str, str] | None, clients: int, seconds: float
) -> tuple[list[float], float]:
    """Each client asks for one experiment again and again on a connection of its own; latencies and time taken."""

    def ask(session: requests.Session) -> None:
        answer = session.get(f"{url}/api/2.0/mlflow/experiments/get?experiment_id=0", auth=auth, timeout=300)
        answer.raise_for_status()

    return drive(ask, clients, seconds)


@contextmanager
def servers(stack: Stack) -> Iterator[dict[str, tuple[str, tuple[str, str] | None]]]:
    """The three servers by name; only the one being measured is asked anything."""
    stack.start()
    found: dict[str, tuple[str, tuple[str, str] | None]] = {"ours": (stack.url, stack.admin)}
    ini = stack.files / "basic_auth.ini"
    plain = ini.read_text().replace("authorization_function = mlflow_stack_auth:authenticate\n", "")
    (stack.files / "plain.ini").write_text(plain)
    for name, app in {"plain": "mlflow.server.auth:create_app()", "no-auth": "mlflow.server:app"}.items():
        port = free_port()
        program = (
            "import os; from mlflow_stack_auth import serve as s;"
            "e = s.settings(os.environ, s._secrets(), (3, 4));"
            f"c = {(*_GUNICORN, app)!r}; os.execvpe(c[0], c, e)"
        )
        options = (
            *("--publish", f"127.0.0.1:{port}:5000", "--entrypoint", "python"),
            *("--env", "MLFLOW_AUTH_CONFIG_PATH=/etc/mlflow/plain.ini"),
            *("--volume", f"{stack.files}/plain.ini:/etc/mlflow/plain.ini:ro"),
        )
        stack.serve(name, *options, command=("-c", program))
        url = f"http://127.0.0.1:{port}"
        stack.wait(lambda url=url: _health(url), "OK")  # type: ignore[misc]
        found[name] = (url, stack.admin if name == "plain" else None)
    yield found


def _health(url: str) -> str:
    try:
        return requests.get(f"{url}/health", timeout=5).text
    except requests.RequestException as error:
        return type(error).__name__


def main(seconds: float = 8) -> None:
    """Measure and print."""
    stack = Stack("3.4.0", ensure(["python", "postgres", "minio"]))
    try:
        with servers(stack) as found:
            print("| clients | server | requests/s | p50 ms | p99 ms | to plain | to no auth |")
            print("| ---: | --- | ---: | ---: | ---: | ---: | ---: |")
            for clients in CLIENTS:
                seen: dict[str, list[float]] = {name: [] for name in found}
                took = dict.fromkeys(found, 0.0)
                for name, (url, auth) in [*found.items()] * ROUNDS:
                    measure(url, auth, 1, 0.5)
                    latencies, passed = measure(url, auth, clients, seconds / ROUNDS)
                    seen[name] += latencies
                    took[name] += passed
                results = {name: result(seen[name], took[name]) for name in found}
                for name in ("plain", "ours", "no-auth"):
                    of = results[name]
                    print(
                        f"| {clients} | {name} | {of.rate:.1f} | {of.p50 * 1000:.0f} | {of.p99 * 1000:.0f} "
                        f"| {of.rate / results['plain'].rate:.1f} | {of.rate / results['no-auth'].rate:.2f} |",
                        flush=True,
                    )
    finally:
        stack.close()


if __name__ == "__main__":
    main(*(float(argument) for argument in sys.argv[1:2]))
