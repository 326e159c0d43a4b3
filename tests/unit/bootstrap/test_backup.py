"""What is refused before anything is changed, and what a backup is made of."""

from __future__ import annotations

import errno
import io
import json
import os
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from scripts.bootstrap import backup, commands, restore, team
from scripts.bootstrap.stack import Stack
from scripts.machine.problems import Problem
from tests.unit.bootstrap.conftest import IDENTITY, OTHERS, OURS, Program, container

Has = Callable[..., None]

STACK_URN = "urn:pulumi:dev::mlops-stack::pulumi:pulumi:Stack::mlops-stack-dev"
SITE_URN = "urn:pulumi:dev::mlops-stack::mlops-stack:components:Site::site"
PROVIDER = {
    "urn": "urn:pulumi:dev::mlops-stack::pulumi:providers:random::default",
    "type": "pulumi:providers:random",
}
VOLUME = {
    "urn": "urn:pulumi:dev::mlops-stack::docker:index/volume:Volume::volume-mlflow-minio-data",
    "type": "docker:index/volume:Volume",
    "id": "mlflow-minio-data",
}
STATE: dict[str, Any] = {
    "version": 3,
    "deployment": {
        "secrets_providers": {"type": "passphrase"},
        "resources": [
            {"urn": STACK_URN, "type": "pulumi:pulumi:Stack"},
            {"urn": SITE_URN, "type": "mlops-stack:components:Site", "parent": STACK_URN},
            PROVIDER,
            {**IDENTITY, "parent": SITE_URN},
            {"urn": f"{SITE_URN}-net", "type": "docker:index/network:Network", "parent": SITE_URN},
            {"urn": f"{SITE_URN}-two", "type": "mlops-stack:components:Service", "parent": STACK_URN},
        ],
        "pending_operations": [{"type": "creating"}],
    },
}


def archive() -> str:
    """A tar of one file, as text."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        entry = tarfile.TarInfo("data/object")
        entry.size = 700
        tar.addfile(entry, io.BytesIO(b"x" * 700))
    return buffer.getvalue().decode("ascii")


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    """A backup's folder."""
    folder = tmp_path / "backups" / "dev-1"
    folder.mkdir(parents=True)
    contents = {
        "state.json": json.dumps(STATE),
        "settings.yaml": "config:\n  mlops-stack:mlflowPort: 5500\n",
        "mlflow-postgres.dump": "a dump",
    }
    for name, text in contents.items():
        (folder / name).write_text(text)
    manifest = {
        "stack": "dev",
        "versions": {"mlflow-server": "3.4.0"},
        "files": {name: len(text) for name, text in contents.items()},
    }
    (folder / "backup.json").write_text(json.dumps(manifest))
    return folder


@pytest.fixture
def runs(engine_has: Has, pulumi: Program, docker: Program, stack: Stack) -> None:
    """A stack with two stores of three kinds, and its state."""
    engine_has(container("mlflow-postgres"), container("mlflow-minio"))
    pulumi.answers("stack export", STATE)
    docker.answers("exec", "a dump")
    docker.answers("cp", archive())
    stack.config_file.write_text("config: {}\n")


@pytest.mark.usefixtures("runs")
def test_what_is_saved_is_whole_and_can_be_read(stack: Stack, tmp_path: Path, said: list[str]) -> None:
    folder = backup.save(stack, tmp_path / "into", said.append)
    read = backup.read(folder, stack)
    assert read.state == STATE
    assert set(read.files) == {"state.json", "settings.yaml", "mlflow-postgres.dump", "mlflow-minio.tar"}
    assert [file.name for file in folder.parent.iterdir()] == [folder.name]
    assert "has all data in plain text" in said[-1]


# Of tar's padding to ten kilobytes the engine writes no more than two blocks.
CONTENT = archive().rstrip("\0")


@pytest.mark.usefixtures("runs")
@pytest.mark.parametrize("copied", [CONTENT[:-200], CONTENT[:600], CONTENT + "\0" * 300, ""])
def test_an_archive_that_ends_early_is_no_backup(
    stack: Stack, docker: Program, tmp_path: Path, said: list[str], copied: str
) -> None:
    docker.answers("cp", copied)
    with pytest.raises(Problem, match="did not copy all of mlflow-minio"):
        backup.save(stack, tmp_path / "into", said.append)
    assert list((tmp_path / "into").iterdir()) == []


@pytest.mark.usefixtures("runs")
def test_a_dump_that_fails_is_no_backup(
    stack: Stack, docker: Program, tmp_path: Path, said: list[str]
) -> None:
    docker.answers("exec", "half a du", code=1, err="pg_dump: error: out of memory")
    with pytest.raises(Problem, match="out of memory"):
        backup.save(stack, tmp_path / "into", said.append)
    assert list((tmp_path / "into").iterdir()) == []


@pytest.mark.usefixtures("runs")
def test_a_store_that_is_started_while_it_is_copied_makes_no_backup(
    stack: Stack, engine_has: Has, docker: Program, tmp_path: Path, said: list[str]
) -> None:
    engine_has(container("langfuse-clickhouse"), container("langfuse-worker"))  # run, whatever is stopped
    with pytest.raises(Problem, match="langfuse-clickhouse, langfuse-worker: started again"):
        backup.save(stack, tmp_path / "into", said.append)
    assert list((tmp_path / "into").iterdir()) == []
    power = [call.split()[0::3] for call in docker.calls if call.startswith(("stop", "start"))]
    worker, clickhouse = "id-of-langfuse-worker", "id-of-langfuse-clickhouse"
    assert power == [
        ["stop", worker],
        ["stop", clickhouse],
        ["stop", worker],  # both again: only what is stopped for certain can be started
        ["start"],
        ["start"],
    ]


@pytest.mark.usefixtures("runs")
def test_what_is_not_in_a_backup_is_named(
    stack: Stack, docker: Program, tmp_path: Path, said: list[str]
) -> None:
    owned = "volume ls --filter label=mlops-stack.stack=mlops-stack/dev --format {{.Name}}"
    docker.answers(owned, "t-langfuse-postgres-data\nt-mlflow-minio-data")
    docker.answers(f"{owned} ", f"t-langfuse-postgres-data {OURS}\nt-mlflow-minio-data {OURS}")
    stack.config_file.write_text("config:\n  mlops-stack:mlflowS3Endpoint: https://s3.example.com\n")
    backup.save(stack, tmp_path / "into", said.append)
    assert any(line.startswith("Not in it: what mlflowS3Endpoint names") for line in said)
    assert any(
        line.startswith("Not in it: what is in the volumes of langfuse-postgres, which have no container")
        for line in said
    )


@pytest.mark.usefixtures("runs")
def test_another_states_stack_is_not_saved_with_this_ones_secrets(
    stack: Stack, engine_has: Has, docker: Program, tmp_path: Path, said: list[str]
) -> None:
    engine_has(container("mlflow-postgres", identity=OTHERS))
    with pytest.raises(Problem, match="this state does not know"):
        backup.save(stack, tmp_path / "into", said.append)
    assert not any(call.startswith(("exec", "stop")) for call in docker.calls)


@pytest.mark.usefixtures("runs")
def test_a_full_disk_leaves_no_backup(
    stack: Stack, tmp_path: Path, said: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(_descriptor: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(Problem, match="cannot be written: No space left"):
        backup.save(stack, tmp_path / "into", said.append)
    assert list((tmp_path / "into").iterdir()) == []


@pytest.mark.parametrize(
    ("state", "running", "reason"),
    [
        ({"deployment": {"resources": [IDENTITY]}}, "exited", "does not run"),
        ({"version": 3, "deployment": None}, "running", "the state of the stack dev was lost"),
    ],
)
def test_what_cannot_be_saved_is_told_before(
    stack: Stack,
    pulumi: Program,
    engine_has: Has,
    tmp_path: Path,
    said: list[str],
    state: Any,
    running: str,
    reason: str,
) -> None:
    engine_has(container("mlflow-postgres", Status=running))
    pulumi.answers("stack export", state)
    with pytest.raises(Problem, match=reason):
        backup.save(stack, tmp_path / "into", said.append)
    assert not (tmp_path / "into").exists()


def test_a_folder_that_is_no_whole_backup_of_this_stack_is_refused(saved: Path, stack: Stack) -> None:
    with pytest.raises(Problem, match="is no backup"):
        backup.read(saved.parent, stack)
    with pytest.raises(Problem, match="of the stack dev") as refused:
        backup.read(saved, Stack("team-a"))
    assert refused.value.fix == f"make restore ARGS={saved}"
    (saved / "mlflow-postgres.dump").write_text("a d")
    with pytest.raises(Problem, match="not as it was saved, 6 bytes long"):
        backup.read(saved, stack)


@pytest.mark.parametrize(
    ("there", "taken"),
    [
        (None, True),
        ("# The stack's settings\nconfig: {}\n", True),
        ("config:\n  mlops-stack:mlflowPort: 5501\n", False),
        ("encryptionsalt: v1:abc\n", False),
    ],
)
def test_settings_that_are_there_are_kept(
    saved: Path, stack: Stack, said: list[str], there: str | None, taken: bool
) -> None:
    if there is not None:
        stack.config_file.write_text(there)
    restore.take_settings(backup.read(saved, stack), stack, said.append)
    assert ("5500" in stack.config_file.read_text()) == taken
    assert bool(said) != taken


def _take(saved: Path, stack: Stack, *, replace: bool = False, keep_data: bool = False) -> None:
    restore.take_secrets(backup.read(saved, stack), stack, replace=replace, keep_data=keep_data)


def test_an_empty_state_gets_the_secrets_and_nothing_of_an_engine(
    saved: Path, stack: Stack, pulumi: Program, monkeypatch: pytest.MonkeyPatch, engine_has: Has
) -> None:
    engine_has()
    pulumi.answers("stack export", {"version": 3, "deployment": {}})
    imported: list[Any] = []
    monkeypatch.setattr(stack, "import_", imported.append)
    _take(saved, stack)
    (state,) = imported
    assert [item["urn"] for item in state["deployment"]["resources"]] == [
        STACK_URN,
        SITE_URN,
        PROVIDER["urn"],
        IDENTITY["urn"],
    ]
    assert state["deployment"]["pending_operations"] == []
    assert state["deployment"]["secrets_providers"] == {"type": "passphrase"}


def test_what_was_granted_on_another_database_is_forgotten_alone(
    stack: Stack, pulumi: Program, monkeypatch: pytest.MonkeyPatch
) -> None:
    accounts = [
        {"urn": kind, "type": f"pulumi-python:dynamic/mlflow:{kind}"}
        for kind in ("User", "Experiment", "ExperimentPermission", "RegisteredModelPermission")
    ]
    pulumi.answers("stack export", {"version": 3, "deployment": {"resources": [IDENTITY, *accounts]}})
    imported: list[Any] = []
    monkeypatch.setattr(stack, "import_", imported.append)
    team.forget_experiment_permissions(stack)
    (state,) = imported
    left = [item["urn"] for item in state["deployment"]["resources"]]
    assert left == [IDENTITY["urn"], "User", "Experiment", "RegisteredModelPermission"]


def test_other_secrets_than_the_backups_are_not_lost(saved: Path, stack: Stack, pulumi: Program) -> None:
    other = {**IDENTITY, "outputs": {"hex": OTHERS}}
    pulumi.answers("stack export", {"deployment": {"resources": [other]}})
    with pytest.raises(Problem, match="has secrets of its own"):
        _take(saved, stack, replace=True)
    assert not any("import" in call for call in pulumi.calls)


def test_data_that_is_there_is_replaced_only_where_that_is_said(
    saved: Path, stack: Stack, pulumi: Program, docker: Program, engine_has: Has
) -> None:
    engine_has()
    pulumi.answers("stack export", {"deployment": {"resources": [IDENTITY]}})
    docker.answers("volume ls", f"mlflow-minio-data {OURS}")
    with pytest.raises(Problem, match="the engine has data") as refused:
        _take(saved, stack)
    assert f"make restore ARGS='{saved} --replace'" in refused.value.fix
    _take(saved, stack, replace=True)
    _take(saved, stack, keep_data=True)


@pytest.mark.parametrize("listed", ["mlflow-minio-data", f"mlflow-minio-data {OTHERS}"])
def test_a_volume_that_the_state_knows_is_its_data_whatever_its_labels_say(
    saved: Path, stack: Stack, pulumi: Program, docker: Program, engine_has: Has, listed: str
) -> None:
    engine_has()
    pulumi.answers("stack export", {"deployment": {"resources": [IDENTITY, VOLUME]}})
    owned = "volume ls --filter label=mlops-stack.stack=mlops-stack/dev --format {{.Name}}"
    docker.answers("volume ls --format {{.Name}}", "mlflow-minio-data\nanother")
    docker.answers(owned, "")
    docker.answers(f"{owned} ", listed if " " in listed else "")
    with pytest.raises(Problem, match=": mlflow-minio-data\n"):
        _take(saved, stack)
    _take(saved, stack, replace=True)


def test_a_lost_state_that_goes_on_with_the_data_knows_its_volumes(
    saved: Path, stack: Stack, pulumi: Program, monkeypatch: pytest.MonkeyPatch, engine_has: Has
) -> None:
    engine_has()
    pulumi.answers("stack export", {"version": 3, "deployment": {}})
    state = json.loads((saved / "state.json").read_text())
    state["deployment"]["resources"].append({**VOLUME, "parent": SITE_URN})
    monkeypatch.setattr(backup.Backup, "state", property(lambda _: state))
    imported: list[Any] = []
    monkeypatch.setattr(stack, "import_", imported.append)
    _take(saved, stack, keep_data=True)
    _take(saved, stack)
    has_volume = [
        any(item["urn"] == VOLUME["urn"] for item in each["deployment"]["resources"]) for each in imported
    ]
    assert has_volume == [True, False]


@pytest.mark.parametrize(
    ("runs", "version", "reason"),
    [
        ("mlflow-server", "3.17.2", "has data of mlflow-postgres"),
        ("mlflow-postgres", "3.1.4", "mlflow-server 3.1.4 cannot read what 3.4.0 wrote"),
    ],
)
def test_what_the_stack_could_not_read_is_refused(
    saved: Path, stack: Stack, engine_has: Has, docker: Program, runs: str, version: str, reason: str
) -> None:
    server = container("mlflow-server")
    server["Config"]["Labels"]["mlops-stack.version"] = version
    engine_has(*([server] if runs == "mlflow-server" else [server, container(runs)]))
    with pytest.raises(Problem, match=reason):
        restore.put_back(backup.read(saved, stack), stack, print)
    assert not any(call.startswith(("stop", "exec", "run")) for call in docker.calls)


@pytest.mark.parametrize(
    ("service", "version", "readable"),
    [
        ("mlflow-postgres", "17.5-bookworm", True),
        ("mlflow-postgres", "registry.example:5000/postgres:18@sha256:0", True),
        ("mlflow-postgres", "mlops-stack-airgap/postgres:15", False),
        ("langfuse-clickhouse", "26.3.1.1", True),
        ("langfuse-clickhouse", "mlops-stack-airgap/clickhouse:18.16", False),
        ("langfuse-clickhouse", "sha256:0123abcd0123", True),
        ("langfuse-web", "3.224.9", False),
    ],
)
def test_a_store_is_not_given_what_a_newer_one_wrote(
    saved: Path, stack: Stack, engine_has: Has, service: str, version: str, readable: bool
) -> None:
    there = container(service)
    there["Config"]["Labels"]["mlops-stack.version"] = version
    engine_has(there)
    manifest = json.loads((saved / "backup.json").read_text())
    manifest["files"] = {name: size for name, size in manifest["files"].items() if not name.endswith(".dump")}
    manifest["versions"] = {
        **{"mlflow-postgres": "17.6-bookworm", "langfuse-clickhouse": "26.3.62.3", "langfuse-web": "3.225.4"},
        "mlflow-server": "3.4.0",
    }
    (saved / "backup.json").write_text(json.dumps(manifest))
    chosen = backup.read(saved, stack)
    if readable:
        restore.put_back(chosen, stack, print)
    else:
        with pytest.raises(Problem, match=f"{service} .* cannot read what"):
            restore.put_back(chosen, stack, print)


def test_an_interrupted_restore_says_how_to_begin_anew(
    saved: Path, stack: Stack, engine_has: Has, pulumi: Program, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    engine_has(container("mlflow-postgres"))
    monkeypatch.setattr("scripts.bootstrap.restore._feed", interrupted)
    with pytest.raises(Problem, match="interrupted while data was replaced") as told:
        restore.put_back(backup.read(saved, stack), stack, print)
    assert f"make restore ARGS='{saved} --replace' begins anew" in told.value.fix


@pytest.mark.parametrize("arguments", [["one", "two"], ["--replce"]])
@pytest.mark.parametrize("command", ["backup", "restore"])
def test_arguments_that_mean_nothing_are_refused(
    command: str, arguments: list[str], docker: Program, capsys: pytest.CaptureFixture[str]
) -> None:
    assert commands.main([command, *arguments]) == 1
    assert "is not what this command takes" in capsys.readouterr().err
    assert not any(call.startswith(("exec", "cp", "stop")) for call in docker.calls)
