"""The state is gone while the stack runs: nothing is touched, and the documented way back brings everything back."""

from __future__ import annotations

import re
import shutil
import subprocess
import time
from pathlib import Path

import pytest

from scripts.bootstrap import leftovers
from scripts.bootstrap.stack import Stack
from scripts.machine.problems import Problem
from scripts.machine.processes import say
from tests.deployment import Deployment, make_up
from tests.faults.writers import MlflowWriter

INI = "/etc/mlflow/basic_auth.ini"


def _shell(script: str, folder: Path) -> str:
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", script], cwd=folder, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, f"{script}\n{done.stdout}{done.stderr}"
    return done.stdout


CAROL = {"name": "carol", "experiments": {"0": "READ"}}


@pytest.fixture(scope="module")
def written(empty: Deployment) -> MlflowWriter:
    """What there is when the state goes: a run with a metric and an artifact; and a user."""
    empty.configure(mlflowUsers=[CAROL])
    empty.up().ok()
    writer = MlflowWriter.of(empty)
    writer.write(1)
    assert len(writer.acknowledged) == 2
    return writer


@pytest.fixture
def commands(empty: Deployment, stack: Stack, written: MlflowWriter) -> list[str]:
    """The state is gone, and these commands are what `make up` prints then."""
    shutil.rmtree(empty.folder / ".pulumi-state")
    (empty.folder / ".pulumi-state").mkdir()
    empty.pulumi("stack", "init", empty.stack).ok()
    with pytest.raises(Problem, match="was lost") as refused:
        leftovers.clear(stack, say)
    return [line for line in refused.value.fix.splitlines() if line.strip().startswith("docker ")]


def test_without_its_state_nothing_is_touched(
    empty: Deployment, commands: list[str], written: MlflowWriter
) -> None:
    before = empty.containers()
    assert empty.up().code != 0
    assert empty.containers() == before
    assert written.lost() == []


def test_a_new_state_takes_over_the_volumes(
    empty: Deployment, stack: Stack, commands: list[str], written: MlflowWriter, tmp_path: Path
) -> None:
    # "The state is lost" of docs/operations.md, command by command.
    began = time.monotonic()
    password = _administrators_password(
        _shell(f"docker exec {empty.prefix}mlflow-server cat {INI}", tmp_path)
    )
    before = _volumes(empty)
    _shell("\n".join(commands[:2]), tmp_path)
    assert empty.left_over() == list(before)

    empty.configure_secret("mlflowAdminPassword", password)
    empty.configure(mlflowUsers=None)
    empty.configure(mlflowUsers=[{**CAROL, "adopt": True}])
    empty.up().ok()
    print(f"volumes taken over after {time.monotonic() - began:.0f} s")
    assert _volumes(empty) == before
    _all_is_there(empty, stack, written)


@pytest.mark.thorough
def test_a_backup_brings_everything_back(
    empty: Deployment, stack: Stack, commands: list[str], written: MlflowWriter, tmp_path: Path
) -> None:
    # The same without the volumes.
    began = time.monotonic()
    prefix = empty.prefix
    save = f"""
    umask 077; mkdir -p backup
    docker exec {prefix}mlflow-postgres pg_dump -U mlflow --format custom mlflow > backup/mlflow.dump
    docker exec {prefix}mlflow-postgres-auth pg_dump -U mlflow_auth --format custom mlflow_auth > backup/mlflow_auth.dump
    docker cp {prefix}mlflow-minio:/data - > backup/mlflow-artifacts.tar
    docker exec {prefix}mlflow-server cat {INI}
    """
    password = _administrators_password(_shell(save, tmp_path))
    _shell("\n".join(commands), tmp_path)
    assert empty.left_over() == []

    empty.configure_secret("mlflowAdminPassword", password)
    make_up(empty, stack)
    restore = f"""
    docker stop {prefix}mlflow-server
    docker exec -i {prefix}mlflow-postgres pg_restore -U mlflow --clean --if-exists -d mlflow < backup/mlflow.dump
    docker exec -i {prefix}mlflow-postgres-auth pg_restore -U mlflow_auth --clean --if-exists -d mlflow_auth < backup/mlflow_auth.dump
    docker stop {prefix}mlflow-minio && docker cp - {prefix}mlflow-minio:/ < backup/mlflow-artifacts.tar && docker start {prefix}mlflow-minio
    """
    _shell(restore, tmp_path)
    make_up(empty, stack)
    print(f"restored after {time.monotonic() - began:.0f} s")
    _all_is_there(empty, stack, written)


def _administrators_password(text: str) -> str:
    found = re.search(r"^admin_password = (\S+)$", text, re.MULTILINE)
    assert found
    return found[1]


def _volumes(up: Deployment) -> dict[str, str]:
    """Name -> when it was made."""
    names = [name for name in up.left_over() if name.endswith("-data")]
    listed = up.docker("volume", "inspect", "--format", "{{.Name}} {{.CreatedAt}}", *names)
    return dict(line.split() for line in listed.stdout.splitlines())


def _all_is_there(up: Deployment, stack: Stack, written: MlflowWriter) -> None:
    """The administrator's old password still serves the writer, and the user has the one that the stack tells."""
    assert written.lost() == []
    outputs = up.outputs()
    carol = MlflowWriter(outputs["mlflowUrl"], ("carol", outputs["mlflowUserPasswords"]["carol"]))
    assert carol.call("GET", "api/2.0/mlflow/experiments/get", params={"experiment_id": "0"}).ok
    leftovers.clear(stack, say)
    up.up("--refresh", "--expect-no-changes").ok()
