"""MLflow's server through its REST API: metrics, batches, artifacts and searches at 1, 8 and 64 clients, and what limits them.

Run it with `python -m benchmarks mlflow`. Each client is a thread with a connection of its own, and logs in with every request.
"""

from __future__ import annotations

import itertools
import os
import statistics
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import requests

from benchmarks import cgroup
from benchmarks.load import drive
from benchmarks.report import a_stack, table
from scripts.machine.processes import say
from tests.deployment import Deployment
from tests.engine import docker

CLIENTS = (1, 8, 64)
_SECONDS = 5.0
_BATCH = 100
_ARTIFACT = os.urandom(64 * 1024)
_ASKED = ("mlflow-server", "mlflow-postgres", "mlflow-minio")
# Of all cores: above this, there is no more processor to be had.
_BUSY = 0.85
# Of the time: above this, the disk is written to without a pause.
_DISK_BUSY = 0.7


@dataclass
class Client:
    """Requests of one user to one server, on one run."""

    url: str
    auth: tuple[str, str]
    run: dict[str, str] = field(default_factory=dict)
    _number: Iterator[int] = field(default_factory=lambda: itertools.count(1))

    def __post_init__(self) -> None:
        with requests.Session() as session:
            made = self.post(session, "experiments/create", {"name": f"benchmark-{time.time_ns()}"}).json()
            created = self.post(session, "runs/create", {**made, "start_time": 1}).json()
            self.run = created["run"]["info"]

    def post(self, session: requests.Session, path: str, body: Mapping[str, object]) -> requests.Response:
        answer = session.post(f"{self.url}/api/2.0/mlflow/{path}", json=body, auth=self.auth, timeout=300)
        answer.raise_for_status()
        return answer

    def log_metric(self, session: requests.Session) -> None:
        """One value."""
        number = next(self._number)
        body = {
            "run_id": self.run["run_id"],
            "key": f"m{number % 50}",
            "value": number,
            "timestamp": 1,
            "step": number,
        }
        self.post(session, "runs/log-metric", body)

    def log_batch(self, session: requests.Session) -> None:
        """A hundred values."""
        number = next(self._number)
        metrics = [
            {"key": f"b{index}", "value": number, "timestamp": 1, "step": number} for index in range(_BATCH)
        ]
        self.post(session, "runs/log-batch", {"run_id": self.run["run_id"], "metrics": metrics})

    def upload(self, session: requests.Session) -> None:
        """64 KiB, through MLflow's server into MinIO."""
        path = f"{self.run['experiment_id']}/{self.run['run_id']}/artifacts/{next(self._number)}.bin"
        url = f"{self.url}/api/2.0/mlflow-artifacts/artifacts/{path}"
        session.put(url, data=_ARTIFACT, auth=self.auth, timeout=300).raise_for_status()

    def search(self, session: requests.Session) -> None:
        """The experiment's runs above a value."""
        body = {
            "experiment_ids": [self.run["experiment_id"]],
            "filter": "metrics.b1 > 0",
            "max_results": 20,
        }
        self.post(session, "runs/search", body)


@dataclass
class Machine:
    """What was busy while something ran: shares of all cores, and of the time that the disk was written to."""

    cores: float = 0.0
    disk: float = 0.0
    containers: dict[str, float] = field(default_factory=dict)

    def limit(self, clients: int) -> str:
        """In words."""
        most = max(self.containers, key=lambda name: self.containers[name])
        if self.cores > _BUSY:
            return f"CPU, most of it {most}"
        if self.disk > _DISK_BUSY:
            return "disk sync"
        return (
            "round trip of one client"
            if clients == 1
            else "neither CPU nor disk: locks, as all write one run"
        )


@contextmanager
def watched(stack: Deployment) -> Iterator[Machine]:
    """What is busy meanwhile."""
    machine = Machine()
    ids = {
        name: docker("inspect", "--format", "{{.State.Pid}}", stack.container(name)).stdout.strip()
        for name in _ASKED
    }
    began, idle, disk = time.monotonic(), _idle(), _disk()
    before = {name: cgroup.seconds(pid) for name, pid in ids.items()}
    yield machine
    took, cores = time.monotonic() - began, os.cpu_count() or 1
    machine.cores = 1 - (_idle() - idle) / (took * cores)
    machine.disk = (_disk() - disk) / took
    machine.containers = {name: (cgroup.seconds(pid) - before[name]) / took for name, pid in ids.items()}


def _idle() -> float:
    """Seconds that processors had nothing to do, or waited for a disk."""
    fields = Path("/proc/stat").read_text().splitlines()[0].split()
    return (int(fields[4]) + int(fields[5])) / os.sysconf("SC_CLK_TCK")


def _disk() -> float:
    """Seconds that the busiest disk was at work."""
    lines = [line.split() for line in Path("/proc/diskstats").read_text().splitlines()]
    return max((int(fields[12]) for fields in lines if not fields[2].startswith("loop")), default=0) / 1000


def main(seconds: float = _SECONDS) -> None:
    """Measure and print."""
    with a_stack(langfuseEnabled=False) as stack:
        stack.up().ok()
        outputs = stack.outputs()
        client = Client(
            outputs["mlflowUrl"], (outputs["mlflowAdminUsername"], outputs["mlflowAdminPassword"])
        )
        actions = {
            "log_metric": client.log_metric,
            f"log_batch of {_BATCH}": client.log_batch,
            "artifact, 64 KiB": client.upload,
            "search": client.search,
        }
        rows = []
        for name, action in actions.items():
            drive(action, 2, 0.5)
            alone = 0.0
            for clients in CLIENTS:
                say(f"{name}, {clients} clients")
                with watched(stack) as machine:
                    latencies, took = drive(action, clients, seconds)
                rate = len(latencies) / took
                alone = alone or rate
                ordered = sorted(latencies)
                rows.append(
                    (
                        name,
                        clients,
                        f"{rate:.1f}",
                        f"{rate / alone:.1f}",
                        f"{statistics.median(ordered) * 1000:.0f}",
                        f"{ordered[int(len(ordered) * 0.99)] * 1000:.0f}",
                        f"{machine.cores:.0%}",
                        *(f"{machine.containers[part]:.2f}" for part in _ASKED),
                        f"{machine.disk:.0%}",
                        machine.limit(clients),
                    )
                )
    print("The clients run on the same machine, and take their part of its cores.\n")
    table(
        (
            *("request", "clients", "per second", "to one client", "p50 ms", "p99 ms", "all cores busy"),
            *(f"cores of {part}" for part in _ASKED),
            *("disk busy", "limit"),
        ),
        rows,
    )
