"""Memory by container, idle and under load: the stack against the same containers with their images' defaults.

Run it with `python -m benchmarks memory`. Both run in turn on the same engine. "Defaults" is the same topology by docker compose
without our limits and tuning: `mlflow server` with its basic-auth app and as many processes as it starts by itself, no limits of
memory, ClickHouse with its own logs and caches. It also tells what the health checks cost.
"""

from __future__ import annotations

import json
import os
import tempfile
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import requests

from benchmarks import cgroup
from benchmarks.compose import Compose, generate, literal
from benchmarks.load import drive
from benchmarks.report import a_stack, table
from benchmarks.tracking import Client
from components.service import REST_SECONDS
from scripts.bootstrap.commands import DESTROY
from scripts.machine.processes import say
from tests.deployment import RUNNING as BY_PRODUCT
from tests.deployment import SERVICES, Deployment
from tests.engine import docker, tag_of

RUNNING = [*BY_PRODUCT["mlflow"], *BY_PRODUCT["langfuse"]]
_LOAD_CLIENTS = 16
_LOAD_SECONDS = 15.0
_SETTLED_WITHIN = 1.02
_PATIENCE_SECONDS = 90.0
_CHECK_TIMES = 20
_IDLE_SECONDS = 20.0
_OURS = ("NODE_OPTIONS=", "MLFLOW_WORKERS=", "MLFLOW_THREADS=", "MLFLOW_DB_")
_PLAIN_MLFLOW = """
for file in /run/secrets/*; do export "$(basename "$file")=$(cat "$file")"; done
sed /^authorization_function/d "$MLFLOW_AUTH_CONFIG_PATH" > /tmp/basic_auth.ini
export MLFLOW_AUTH_CONFIG_PATH=/tmp/basic_auth.ini
exec mlflow server --app-name basic-auth --host 0.0.0.0 --serve-artifacts --artifacts-destination "$MLFLOW_ARTIFACTS_DESTINATION"
"""


def with_defaults(content: Mapping[str, Any]) -> dict[str, Any]:
    """The same containers without what this project sets for the sake of memory."""
    services = {}
    for name, service in content["services"].items():
        plain = {key: value for key, value in service.items() if key not in ("mem_limit", "memswap_limit")}
        plain["environment"] = [line for line in service["environment"] if not line.startswith(_OURS)]
        plain["volumes"] = [
            item
            for item in service["volumes"]
            if not str(item["target"]).endswith("config.d/mlops-stack.xml")
        ]
        services[name] = plain
    services["mlflow-server"]["entrypoint"] = literal(["/bin/sh", "-euc", _PLAIN_MLFLOW])
    return {**content, "services": services}


def usage(stack: Deployment) -> dict[str, float]:
    """MiB by service."""
    return dict(zip(RUNNING, map(cgroup.memory, _pids(stack)), strict=True))


def _pids(*stacks: Deployment) -> list[str]:
    """Of the first process of each running container, in their order."""
    names = [stack.container(service) for stack in stacks for service in RUNNING]
    return docker("inspect", "--format", "{{.State.Pid}}", *names).stdout.split()


def settled(stack: Deployment) -> dict[str, float]:
    """The usage once it no longer grows."""
    before, deadline = usage(stack), time.monotonic() + _PATIENCE_SECONDS
    while True:
        time.sleep(5)
        now = usage(stack)
        total, last = sum(now.values()), sum(before.values())
        if total <= last * _SETTLED_WITHIN or time.monotonic() > deadline:
            return now
        before = now


def under_load(stack: Deployment, outputs: Mapping[str, Any]) -> dict[str, float]:
    """The largest usage of each service while MLflow and Langfuse are written to."""
    seen: list[dict[str, float]] = []
    auth = (outputs["mlflowAdminUsername"], outputs["mlflowAdminPassword"])
    client = Client(outputs["mlflowUrl"], auth)
    keys = (outputs["langfusePublicKey"], outputs["langfuseSecretKey"])
    with requests.Session() as session:
        session.auth = keys

        def trace(number: int) -> None:
            event = {
                "id": f"bench-{number}-{time.time_ns()}",
                "type": "trace-create",
                "timestamp": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
                "body": {"id": f"trace-{number}-{time.time_ns()}", "name": "benchmark", "input": "x" * 2000},
            }
            answer = session.post(
                f"{outputs['langfuseUrl']}/api/public/ingestion", json={"batch": [event]}, timeout=60
            )
            answer.raise_for_status()

        deadline = time.monotonic() + _LOAD_SECONDS
        while time.monotonic() < deadline:
            drive(client.log_batch, _LOAD_CLIENTS // 2, 2.0)
            drive(client.upload, _LOAD_CLIENTS // 2, 2.0)
            for number in range(20):
                trace(number)
            seen.append(usage(stack))
    return {name: max(found[name] for found in seen) for name in RUNNING}


def busy_seconds(*stacks: Deployment) -> float:
    """Processor time so far of the containers and of the engine that runs their health checks."""
    total = sum(map(cgroup.seconds, _pids(*stacks)))
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            name = (folder / "comm").read_text().strip()
            if name in ("dockerd", "containerd") or name.startswith("containerd-shim"):
                fields = (folder / "stat").read_text().rpartition(")")[2].split()
                # Own time and that of children that ended: runc, which each check starts.
                total += sum(int(fields[index]) for index in (11, 12, 13, 14)) / os.sysconf("SC_CLK_TCK")
        except OSError:
            continue
    return total


def checks(stack: Deployment, idle: float) -> Iterator[tuple[str, float, float]]:
    """Service, seconds of processor time that one health check takes, and how often in a minute there is one.

    `idle` is what is busy beside, in cores.
    """
    for service in RUNNING:
        health = stack.inspect(service)["Config"]["Healthcheck"]
        command = ("exec", "--env", "HEALTH_NOW=1", stack.container(service), *health["Test"][1:])
        began, before = time.monotonic(), busy_seconds(stack)
        for _ in range(_CHECK_TIMES):
            docker(*command)
        cost = busy_seconds(stack) - before - idle * (time.monotonic() - began)
        lasts = (time.monotonic() - began) / _CHECK_TIMES
        yield service, max(0.0, cost) / _CHECK_TIMES, 60 / (health["Interval"] / 1e9 + REST_SECONDS + lasts)


def idle_cores(*stacks: Deployment, seconds: float = _IDLE_SECONDS) -> float:
    """How much of one core idle stacks take, the engine's work for them included."""
    began, before = time.monotonic(), busy_seconds(*stacks)
    time.sleep(seconds)
    return (busy_seconds(*stacks) - before) / (time.monotonic() - began)


def main() -> None:
    """Measure and print."""
    with a_stack() as stack, tempfile.TemporaryDirectory(prefix="mlops-stack-bench-") as folder:
        stack.up().ok()
        outputs = stack.outputs()
        ours_idle = settled(stack)
        idle = idle_cores(stack)
        costs = list(checks(stack, idle))
        ours_load = under_load(stack, outputs)
        resources = json.loads(stack.export("--show-secrets"))["deployment"]["resources"]
        images = {found: tag_of(found) for found in {stack.inspect(name)["Image"] for name in _all()}}
        content = generate(resources, images, Path(folder) / "files")
        stack.pulumi(*DESTROY).ok()
        say("the same with the images' defaults")
        plain = Compose.prepared(Path(folder), with_defaults(content))
        try:
            plain.run("up", "--detach", "--wait")
            plain_idle = settled(stack)
            plain_load = under_load(stack, outputs)
        finally:
            plain.run("down", "--volumes")
    _print(ours_idle, plain_idle, ours_load, plain_load)
    print("What the health checks take, the engine's work for them included:\n")
    table(
        ("container", "ms of CPU for one", "in a minute", "share of one core"),
        (
            (name, f"{cost * 1000:.0f}", f"{often:.0f}", f"{cost * often / 60:.1%}")
            for name, cost, often in costs
        ),
    )
    total = sum(cost * often / 60 for _, cost, often in costs)
    print(
        f"All together {total:.0%} of one core; the whole idle stack takes {idle:.0%}, measured over {_IDLE_SECONDS:.0f} s.\n"
    )


def _all() -> tuple[str, ...]:
    return (*SERVICES["mlflow"], *SERVICES["langfuse"])


def _print(
    ours_idle: Mapping[str, float],
    plain_idle: Mapping[str, float],
    ours_load: Mapping[str, float],
    plain_load: Mapping[str, float],
) -> None:
    def cells(ours: float, plain: float) -> tuple[str, str, str]:
        return f"{ours:.0f}", f"{plain:.0f}", f"{ours / plain:.2f}"

    parts = (ours_idle, plain_idle, ours_load, plain_load)
    print(
        f"MiB without page cache; under load: {_LOAD_CLIENTS // 2} clients write runs and artifacts, traces are sent.\n"
    )
    table(
        ("container", "idle", "idle, defaults", "ratio", "load", "load, defaults", "ratio"),
        (
            (name, *cells(parts[0][name], parts[1][name]), *cells(parts[2][name], parts[3][name]))
            for name in RUNNING
        ),
    )
    totals = [sum(part.values()) for part in parts]
    table(
        ("", "idle", "idle, defaults", "ratio", "load", "load, defaults", "ratio"),
        [("all", *cells(totals[0], totals[1]), *cells(totals[2], totals[3]))],
    )
