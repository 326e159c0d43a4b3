"""Teams through real Pulumi against the same REST calls in a plain loop: how long each user takes, at several sizes.

Run it with `python -m benchmarks.users [USERS...] [--mlflow VERSION]` where a Docker engine answers, for example with 30 100 300.
Each user holds ten permissions. It prints a table; ratios compare within the run only. By default Pulumi saves its state once, at
the end; with --checkpoints it does at every step, which costs more the more there is in it.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from airgap.images import ensure
from benchmarks.report import seconds
from components.mlflow_auth.client import MlflowAuthClient
from components.mlflow_auth.permissions import experiment, model
from tests.integration.mlflow_auth.project import Project, Team
from tests.integration.mlflow_auth.servers import Server
from tests.integration.mlflow_image.stack import Stack

COUNTS = (10, 100)
PASSWORD = "a-password-of-the-benchmark"
# Ids and names need not exist for MLflow, and none is closed to anybody.
EXPERIMENTS = tuple(str(9000 + number) for number in range(5))
MODELS = tuple(f"model-{number}" for number in range(5))
LEVEL = "EDIT"
# The loop's cost of one user does not depend on how many there are.
_LOOP = 30


def names(count: int, prefix: str) -> list[str]:
    """Of a team's users."""
    return [f"{prefix}-{number:03}" for number in range(count)]


def team(count: int) -> Team:
    """A team as the test program's input."""
    held = {"experiments": dict.fromkeys(EXPERIMENTS, LEVEL), "models": dict.fromkeys(MODELS, LEVEL)}
    return {name: {"password": PASSWORD, **held} for name in names(count, "declared")}


def plain_loop(client: MlflowAuthClient, count: int) -> tuple[float, float]:
    """Seconds for each user: to create with all permissions, and to take all away again, one request after another."""
    targets = [*map(experiment, EXPERIMENTS), *map(model, MODELS)]
    users = names(count, "loop")

    def create() -> None:
        for name in users:
            client.create_user(name, PASSWORD)
            for target in targets:
                client.set_permission(name, target, LEVEL)

    def delete() -> None:
        for name in users:
            for target in targets:
                client.remove_permission(name, target)
            client.delete_user(name)

    return seconds(create) / count, seconds(delete) / count


def measure(server: Server, project: Project, count: int) -> None:
    """One row for each of the three things that Pulumi does with a team of this size."""
    creating, deleting = plain_loop(server.client(), min(count, _LOOP))
    project.declare(team(count))
    for what, action, loop in (
        ("deploy", project.up, creating),
        ("no change", lambda: project.up("--expect-no-changes"), creating),
        ("delete", project.destroy, deleting),
    ):
        took = seconds(action)
        each = took / count
        print(f"| {count} | {what} | {took:.1f} | {each:.3f} | {loop:.3f} | {each / loop:.2f} |", flush=True)
        if what == "deploy":
            last = names(count, "declared")[-1]
            assert len(server.client().permissions_of(last)) == len(EXPERIMENTS + MODELS)


def main(counts: Sequence[int] = COUNTS, version: str = "3.4.0", checkpoints: bool = False) -> None:
    """Measure and print."""
    os.environ["PULUMI_SKIP_CHECKPOINTS"] = "false" if checkpoints else "true"
    stack = Stack(version, ensure(["python", "postgres", "minio"]))
    try:
        stack.start()
        server = Server.of(stack)
        saved = "at every step" if checkpoints else "once, at the end"
        print(f"MLflow {version}, one worker; 10 permissions for each user; Pulumi saves its state {saved}\n")
        print("| users | what | s | s/user | s/user, plain loop | ratio |")
        print("| ---: | --- | ---: | ---: | ---: | ---: |", flush=True)
        for count in counts:
            with tempfile.TemporaryDirectory(prefix="mlops-stack-bench-") as folder:
                measure(server, Project(Path(folder), server), count)
    finally:
        stack.close()


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.users", description=__doc__.splitlines()[0])
    parser.add_argument(
        "users", nargs="*", type=int, default=COUNTS, help=f"sizes of teams (default: {COUNTS})"
    )
    parser.add_argument("--mlflow", default="3.4.0", metavar="VERSION", help="default: 3.4.0")
    parser.add_argument("--checkpoints", action="store_true", help="save Pulumi's state at every step")
    return parser.parse_args(sys.argv[1:])


if __name__ == "__main__":
    _given = _arguments()
    main(_given.users, _given.mlflow, _given.checkpoints)
