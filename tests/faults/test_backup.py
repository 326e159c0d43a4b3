"""`make backup` and `make restore`: what was saved comes back as it was, also where nothing of the stack is left."""

from __future__ import annotations

import shutil
import stat
from pathlib import Path
from typing import Any

import pytest

from tests.checkout import Checkout
from tests.faults.writers import CAROL, Writer, written


@pytest.fixture
def deployed(checkout: Checkout) -> Checkout:
    """Both products, Langfuse's half by its contract double over real stores."""
    checkout.configure(mlflowUsers=[CAROL])
    checkout.make("up", "--langfuse-double")
    return checkout


def _backup(stack: Checkout) -> Path:
    stack.make("backup")
    (folder,) = (stack.folder / "backups").iterdir()
    return folder


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
    before, outputs, containers = written(deployed), deployed.outputs(), deployed.containers()
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
    deployed.make("restore", str(folder))
    _as_it_was(deployed, before, outputs)
    written(deployed)


@pytest.mark.thorough
def test_later_data_is_replaced_and_a_lost_state_alone_leaves_it(deployed: Checkout) -> None:
    before, outputs = written(deployed), deployed.outputs()
    folder = _backup(deployed)
    metrics, traces = written(deployed)
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
