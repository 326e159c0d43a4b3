"""The state is gone while the stack runs: nothing is touched, and the documented way back brings everything back."""

from __future__ import annotations

import re
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

import pytest

from scripts.bootstrap import leftovers
from scripts.bootstrap.problems import Problem
from scripts.bootstrap.processes import say
from scripts.bootstrap.stack import Stack
from tests.deployment import Deployment
from tests.faults.writers import MlflowWriter


def _shell(script: str, folder: Path) -> str:
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", script], cwd=folder, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, f"{script}\n{done.stdout}{done.stderr}"
    return done.stdout


@dataclass
class Lost:
    """What was written before, and what `make up` says about it."""

    written: MlflowWriter
    commands: list[str]


@pytest.fixture(scope="module")
def lost(empty: Deployment) -> Lost:
    empty.configure(mlflowUsers=[{"name": "carol", "experiments": {"0": "READ"}}])
    empty.up().ok()
    written = MlflowWriter.of(empty)
    written.write(1)
    _lose_the_state(empty)
    return Lost(written, [])


def _lose_the_state(up: Deployment) -> None:
    shutil.rmtree(up.folder / ".pulumi-state")
    (up.folder / ".pulumi-state").mkdir()
    up.pulumi("stack", "init", up.stack).ok()


def test_without_its_state_nothing_is_touched(empty: Deployment, stack: Stack, lost: Lost) -> None:
    before = empty.containers()
    with pytest.raises(Problem, match="was lost") as refused:
        leftovers.clear(stack, say)
    lost.commands = [line for line in refused.value.fix.splitlines() if line.strip().startswith("docker ")]
    assert empty.up().code != 0
    assert empty.containers() == before
    assert lost.written.lost() == []
    _lose_the_state(empty)  # what a plain `pulumi up` began to note down


@pytest.mark.thorough
def test_the_documented_way_brings_everything_back(
    empty: Deployment, stack: Stack, lost: Lost, tmp_path: Path
) -> None:
    # "The state is lost" of docs/operations.md, command by command.
    prefix = empty.prefix
    save = f"""
    umask 077; mkdir -p backup
    docker exec {prefix}mlflow-postgres pg_dump -U mlflow --format custom mlflow > backup/mlflow.dump
    docker exec {prefix}mlflow-postgres-auth pg_dump -U mlflow_auth --format custom mlflow_auth > backup/mlflow_auth.dump
    docker cp {prefix}mlflow-minio:/data - > backup/mlflow-artifacts.tar
    docker exec {prefix}mlflow-server cat /etc/mlflow/basic_auth.ini
    """
    password = re.search(r"^admin_password = (\S+)$", _shell(save, tmp_path), re.MULTILINE)
    assert password
    _shell("\n".join(lost.commands), tmp_path)
    assert empty.left_over() == []

    empty.configure_secret("mlflowAdminPassword", password[1])
    leftovers.clear(stack, say)
    empty.up("--refresh").ok()
    restore = f"""
    docker stop {prefix}mlflow-server
    docker exec -i {prefix}mlflow-postgres pg_restore -U mlflow --clean --if-exists -d mlflow < backup/mlflow.dump
    docker exec -i {prefix}mlflow-postgres-auth pg_restore -U mlflow_auth --clean --if-exists -d mlflow_auth < backup/mlflow_auth.dump
    docker stop {prefix}mlflow-minio && docker cp - {prefix}mlflow-minio:/ < backup/mlflow-artifacts.tar && docker start {prefix}mlflow-minio
    """
    _shell(restore, tmp_path)
    leftovers.clear(stack, say)
    empty.up("--refresh").ok()
    assert lost.written.lost() == []
    outputs = empty.outputs()
    carol = MlflowWriter(outputs["mlflowUrl"], ("carol", outputs["mlflowUserPasswords"]["carol"]))
    assert carol.call("GET", "api/2.0/mlflow/experiments/get", params={"experiment_id": "0"}).ok
    empty.up("--refresh", "--expect-no-changes").ok()
