"""`make backup` and `make restore`: what was saved comes back as it was, also where nothing of the stack is left."""

from __future__ import annotations

import shutil
import stat
from pathlib import Path
from typing import Any

import pytest

from components.mlflow_auth.client import MlflowAuthClient
from components.mlflow_auth.permissions import Target
from scripts.bootstrap.stack import Stack
from scripts.machine.processes import INTERRUPTED
from tests.checkout import Checkout
from tests.faults.writers import CAROL, Writer, written


@pytest.fixture
def deployed(checkout: Checkout) -> Checkout:
    """Both products, Langfuse's half by its contract double over real stores."""
    checkout.configure(mlflowUsers=[{**CAROL, "experiments": {"0": "READ", "fraud": "EDIT"}}])
    checkout.make("up", "--langfuse-double")
    return checkout


def _client(stack: Checkout, name: str = "") -> MlflowAuthClient:
    outputs = stack.outputs()
    user = name or outputs["mlflowAdminUsername"]
    password = outputs["mlflowUserPasswords"][name] if name else outputs["mlflowAdminPassword"]
    return MlflowAuthClient(outputs["mlflowUrl"], user, password)


def _carols(stack: Checkout) -> dict[str, str | None]:
    """What carol may do, by the names of experiments."""
    admin = _client(stack)
    return {
        name: admin.permission("carol", Target("experiments", admin.experiment_by_name(name).id))
        for name in ("0", "fraud", "her-own", "churn")
    }


def _grow(stack: Checkout) -> None:
    """Experiments in an order in which no new database would number them, and an account that no setting declares."""
    _client(stack, "carol").ensure_experiment("her-own")
    _client(stack).create_user("dave", "a-password-of-daves")
    Stack(stack.stack, root=stack.folder).set_config("mlflowUsers[0].experiments.churn", "EDIT")
    stack.make("up")


def _backup(stack: Checkout) -> Path:
    stack.make("backup")
    (folder,) = (stack.folder / "backups").iterdir()
    return folder


def _cut_short(stack: Checkout) -> None:
    """A backup that is ended while ClickHouse is being stopped."""
    process = stack.start("backup")
    assert process.stdout is not None
    assert any("Stopping" in line and "clickhouse" in line for line in process.stdout)
    process.terminate()
    printed, _ = process.communicate(timeout=120)
    assert process.returncode == INTERRUPTED, printed


def _refused(stack: Checkout, *arguments: str) -> str:
    process = stack.start("restore", *arguments)
    printed, _ = process.communicate(timeout=120)
    assert process.returncode == 1, printed
    return printed


def _as_it_was(stack: Checkout, writers: list[Writer], outputs: dict[str, Any]) -> None:
    assert all(writer.lost() == [] for writer in writers)
    assert stack.outputs() == outputs
    stack.make("up", "--expect-no-changes")


def test_a_new_machine_gets_what_was_there(deployed: Checkout) -> None:
    _grow(deployed)
    before, outputs, containers = written(deployed), deployed.outputs(), deployed.containers()
    permissions = _carols(deployed)
    assert permissions == {"0": "READ", "fraud": "EDIT", "her-own": "MANAGE", "churn": "EDIT"}
    _cut_short(deployed)
    assert list((deployed.folder / "backups").iterdir()) == []
    assert deployed.healthy("langfuse-clickhouse", "langfuse-worker")
    folder = _backup(deployed)
    assert deployed.containers() == containers, "a backup changes no container"
    assert {file.name for file in folder.iterdir()} == {
        *("backup.json", "state.json", "settings.yaml"),
        *("mlflow-postgres.dump", "mlflow-postgres-auth.dump", "langfuse-postgres.dump"),
        *("mlflow-minio.tar", "langfuse-minio.tar", "langfuse-clickhouse.tar"),
    }
    assert {stat.S_IMODE(file.stat().st_mode) for file in (folder, *folder.iterdir())} == {0o700, 0o600}
    assert "which the backup would replace" in _refused(deployed, str(folder))

    # No state, no settings, nothing on the engine; and at first no passphrase.
    deployed.make("destroy", "--delete-data")
    assert deployed.left_over() == []
    shutil.rmtree(deployed.folder / ".pulumi-state")
    deployed.settings.unlink()
    passphrase = (deployed.folder / ".pulumi-passphrase").rename(deployed.folder / "kept")
    assert "from a backup, or set PULUMI_CONFIG_PASSPHRASE" in _refused(deployed, str(folder))
    passphrase.rename(deployed.folder / ".pulumi-passphrase")
    assert "do not declare: dave\n" in deployed.make("restore", str(folder))
    _as_it_was(deployed, before, outputs)
    assert _carols(deployed) == permissions
    written(deployed)


@pytest.mark.thorough
def test_later_data_is_replaced_and_a_lost_state_alone_leaves_it(deployed: Checkout) -> None:
    before, outputs = written(deployed), deployed.outputs()
    folder = _backup(deployed)
    metrics, traces = written(deployed)
    # Whoever changed the administrator's password since then still gets in.
    Stack(deployed.stack, root=deployed.folder).set_config(
        "mlflowAdminPassword", "Another-Password-1", secret=True
    )
    deployed.make("up")
    outputs = {**outputs, **{key: deployed.outputs()[key] for key in ("mlflowAdminPassword", "clientEnv")}}
    for writer in (before[0], metrics):
        writer.auth = (writer.auth[0], "Another-Password-1")
    deployed.make("restore", str(folder), "--replace")
    _as_it_was(deployed, before, outputs)
    assert metrics.lost() == metrics.acknowledged
    assert not any(traces.call("GET", f"api/public/traces/{trace}").ok for trace in traces.acknowledged)

    later = written(deployed)
    shutil.rmtree(deployed.folder / ".pulumi-state")
    deployed.make("restore", str(folder), "--keep-data")
    _as_it_was(deployed, [*before, *later], outputs)
    deployed.make("destroy", "--delete-data")
    assert deployed.left_over() == []
