"""The state is gone while the stack runs: nothing is touched, and the documented way back brings everything back."""

from __future__ import annotations

import re
import shutil
import subprocess
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from airgap.images import ensure
from airgap.images.recipes import RECIPES
from scripts.bootstrap import leftovers
from scripts.bootstrap.stack import Stack
from scripts.machine.problems import Problem
from scripts.machine.processes import say
from tests.deployment import Deployment, deployment
from tests.faults.writers import CAROL, MlflowWriter, Writer
from tests.faults.writers import written as write_to

# What of Langfuse belongs to its data, and in which of its variables it is.
LANGFUSES = {
    "langfuseSalt": "SALT",
    "langfuseEncryptionKey": "ENCRYPTION_KEY",
    "langfusePublicKey": "LANGFUSE_INIT_PROJECT_PUBLIC_KEY",
    "langfuseSecretKey": "LANGFUSE_INIT_PROJECT_SECRET_KEY",
}


def _shell(script: str, folder: Path) -> str:
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", script], cwd=folder, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, f"{script}\n{done.stdout}{done.stderr}"
    return done.stdout


@pytest.fixture(scope="module")
def empty(tmp_path_factory: pytest.TempPathFactory, environment: Mapping[str, str]) -> Iterator[Deployment]:
    """Both products, Langfuse's half by its contract double over real stores."""
    with deployment(tmp_path_factory.mktemp("deployment"), environment, images=ensure(RECIPES)) as made:
        yield made


@pytest.fixture(scope="module")
def written(empty: Deployment) -> list[Writer]:
    """What there is when the state goes: a run with a metric and an artifact, a trace; and a user."""
    empty.configure(mlflowUsers=[CAROL])
    empty.up().ok()
    return write_to(empty)


@pytest.fixture
def commands(empty: Deployment, stack: Stack, written: list[Writer]) -> list[str]:
    """The state is gone, and these commands are what `make up` prints then."""
    shutil.rmtree(empty.folder / ".pulumi-state")
    (empty.folder / ".pulumi-state").mkdir()
    empty.pulumi("stack", "init", empty.stack).ok()
    with pytest.raises(Problem, match="was lost") as refused:
        leftovers.clear(stack, say)
    return [line for line in refused.value.fix.splitlines() if line.strip().startswith("docker ")]


def test_without_its_state_nothing_is_touched(
    empty: Deployment, commands: list[str], written: list[Writer]
) -> None:
    before = empty.containers()
    assert empty.up().code != 0
    assert empty.containers() == before
    assert all(writer.lost() == [] for writer in written)


def test_a_new_state_takes_over_the_volumes(
    empty: Deployment, stack: Stack, commands: list[str], written: list[Writer], tmp_path: Path
) -> None:
    # "The state is lost" of docs/operations.md, command by command.
    began = time.monotonic()
    prefix = empty.prefix
    ini = _shell(f"docker exec {prefix}mlflow-server cat /etc/mlflow/basic_auth.ini", tmp_path)
    langfuse = f"docker exec {prefix}langfuse-web sh -c 'env | grep PUBLIC_KEY; cat /run/secrets/environment'"
    values = dict(re.findall(r"^(\w+)='?([^'\n]*)'?$", _shell(langfuse, tmp_path), re.MULTILINE))
    before = _volumes(empty)
    _shell("\n".join(commands[:2]), tmp_path)
    assert empty.left_over() == list(before)

    password = re.search(r"^admin_password = (\S+)$", ini, re.MULTILINE)
    assert password
    empty.configure_secret("mlflowAdminPassword", password[1])
    for key, variable in LANGFUSES.items():
        empty.configure_secret(key, values[variable])
    empty.configure(mlflowUsers=None)
    empty.configure(mlflowUsers=[{**CAROL, "adopt": True}])
    empty.up().ok()
    print(f"volumes taken over after {time.monotonic() - began:.0f} s")
    assert _volumes(empty) == before

    # The old passwords and keys still serve the writers, and the user has the one that the stack tells.
    assert all(writer.lost() == [] for writer in written)
    outputs = empty.outputs()
    assert outputs["langfuseSecretKey"] == written[1].auth[1]
    carol = MlflowWriter(outputs["mlflowUrl"], ("carol", outputs["mlflowUserPasswords"]["carol"]))
    assert carol.call("GET", "api/2.0/mlflow/experiments/get", params={"experiment_id": "0"}).ok
    leftovers.clear(stack, say)
    empty.up("--refresh", "--expect-no-changes").ok()


def _volumes(up: Deployment) -> dict[str, str]:
    """Name -> when it was made."""
    names = [name for name in up.left_over() if name.endswith("-data")]
    listed = up.docker("volume", "inspect", "--format", "{{.Name}} {{.CreatedAt}}", *names)
    return dict(line.split() for line in listed.stdout.splitlines())
