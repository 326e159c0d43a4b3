"""A stack's data, secrets and settings as files of one folder. `restore` is the way back."""

from __future__ import annotations

import json
import os
import shutil
import tarfile
import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from scripts.bootstrap import engine, leftovers, power
from scripts.bootstrap.leftovers import Found
from scripts.bootstrap.stack import PASSPHRASE, Stack, resources_of
from scripts.machine.paths import ROOT
from scripts.machine.problems import Problem
from scripts.machine.processes import Say

FOLDER = ROOT / "backups"
_MANIFEST, _STATE, SETTINGS = "backup.json", "state.json", "settings.yaml"

DATABASES = ("mlflow-postgres", "mlflow-postgres-auth", "langfuse-postgres")
_DUMP = 'exec pg_dump --format=custom --username="$POSTGRES_USER" "$POSTGRES_DB"'
CLICKHOUSE, _WORKER = "langfuse-clickhouse", "langfuse-worker"
# In this order: what a database names was written to the object store before.
FOLDERS = {CLICKHOUSE: "/var/lib/clickhouse", "mlflow-minio": "/data", "langfuse-minio": "/data"}
# ClickHouse merges its files all the time, and Langfuse's worker would in the end give up what ClickHouse does not take.
_AT_REST = {CLICKHOUSE: (_WORKER, CLICKHOUSE)}
# Whose data an older release cannot read, and how many numbers of a version make a release.
RELEASES = {"mlflow-server": 2, "langfuse-web": 2, **dict.fromkeys(DATABASES, 1), CLICKHOUSE: 2}
_MANAGED = (
    *("mlflowDatabaseUrl", "mlflowAuthDatabaseUrl", "mlflowS3Endpoint", "langfuseDatabaseUrl"),
    *("langfuseClickhouseUrl", "langfuseS3Endpoint"),
)
_FIX = "put right what it says, and do it again"


@dataclass(frozen=True)
class Backup:
    """A backup that is whole. `files`: name -> bytes. `versions`: service -> release."""

    folder: Path
    stack: str
    files: Mapping[str, int]
    versions: Mapping[str, str]

    @property
    def state(self) -> dict[str, Any]:
        """As Pulumi exported it, secrets encrypted."""
        exported: dict[str, Any] = json.loads((self.folder / _STATE).read_text(encoding="utf-8"))
        return exported

    def file(self, service: str) -> Path | None:
        """What it has of a store."""
        return next((self.folder / name for name in self.files if Path(name).stem == service), None)


def save(stack: Stack, into: Path, say: Say) -> Path:
    """Make a backup below the folder while the stack runs; where it is. One that is cut short leaves none."""
    found = {item.service: item for item in leftovers.containers(stack)}
    stores = [service for service in (*DATABASES, *FOLDERS) if service in found]
    if not stores:
        raise Problem(f"the stack {stack.name} has no stores on this engine", stack.make("up"))
    if resting := [found[service].name for service in stores if found[service].status != "running"]:
        raise Problem(f"{', '.join(resting)} does not run", stack.make("start"))
    exported = stack.exported()
    identity = leftovers.identity_of(resources_of(exported))
    if not identity:
        raise Problem(
            f"the state of the stack {stack.name} was lost, and with it the secrets that unlock the data",
            'docs/operations.md, "The state is lost", tells how to go on; back up then',
        )
    leftovers.refuse_foreign(stack, identity, found.values(), leftovers.known_volumes(exported))
    folder = into / f"{stack.name}-{time.strftime('%Y%m%d-%H%M%S')}"
    partial = folder.with_name(f"{folder.name}.partial")
    try:
        partial.mkdir(mode=0o700, parents=True)
    except OSError as error:
        raise Problem(f"{partial} cannot be made: {error.strerror}", "name another folder in ARGS") from None
    try:
        _write(partial / _STATE, json.dumps(exported))
        _write(partial / SETTINGS, stack.settings)
        _save(stack, found, partial, say)
        partial.rename(folder)
    except OSError as error:
        shutil.rmtree(partial)
        raise Problem(
            f"{partial} cannot be written: {error.strerror}", "see to the disk, and try again"
        ) from None
    except BaseException:
        shutil.rmtree(partial)
        raise
    for key in filter(stack.sets, _MANAGED):
        say(f"Not in it: what {key} names; its own backups have it")
    if off := _without_container(stack, stores):
        say(
            f"Not in it: what is in the volumes of {', '.join(off)}, which have no container: switched off, or managed elsewhere"
        )
    say(
        f"Backup: {folder}, which has all data in plain text. Keep a copy of it elsewhere, and {PASSPHRASE} in another place\n"
        f"{stack.make('restore', str(folder))} brings it back"
    )
    return folder


def _without_container(stack: Stack, stores: Collection[str]) -> list[str]:
    volumes = leftovers.volumes(stack)
    missing = [service for service in (*DATABASES, *FOLDERS) if service not in stores]
    return [service for service in missing if any(name.endswith(f"{service}-data") for name in volumes)]


def _save(stack: Stack, found: Mapping[str, Found], folder: Path, say: Say) -> None:
    for service in DATABASES:
        if service in found:
            _take(["exec", found[service].id, "sh", "-c", _DUMP], folder / f"{service}.dump", say)
    for service, path in FOLDERS.items():
        if service not in found:
            continue
        file = folder / f"{service}.tar"
        resting = [found[name] for name in _AT_REST.get(service, ()) if name in found]
        with power.resting(resting, stack, say):
            _take(["cp", f"{found[service].id}:{path}", "-"], file, say)
            _refuse_woken(stack, resting)
        _check_whole(file)
    files = {file.name: file.stat().st_size for file in sorted(folder.iterdir())}
    versions = {service: found[service].version for service in RELEASES if service in found}
    manifest = {"stack": stack.name, "made": time.strftime("%FT%TZ", time.gmtime()), "versions": versions}
    _write(folder / _MANIFEST, json.dumps({**manifest, "files": files}, indent=2))


def _take(command: Sequence[str], file: Path, say: Say) -> None:
    with _private(file) as descriptor:
        engine.docker(*command, sink=descriptor, fix=_FIX)
    say(f"Saved {file.name}, {file.stat().st_size / (1 << 20):.1f} MiB")


def _refuse_woken(stack: Stack, resting: Sequence[Found]) -> None:
    """Files that change while they are copied make an archive that looks whole."""
    rested = {item.id for item in resting}
    if woken := [
        item.name for item in leftovers.containers(stack) if item.id in rested and item.status != "exited"
    ]:
        raise Problem(
            f"{', '.join(woken)}: started again while data was copied",
            "let the other command end, and try again",
        )


def _check_whole(file: Path) -> None:
    """The engine closes an archive that it could not finish as if it had."""
    with file.open("rb") as stream:
        try:
            with tarfile.open(fileobj=stream, mode="r:") as archive:
                while archive.next() is not None:
                    archive.members = []  # type: ignore[attr-defined]  # it would keep all of them
                stream.seek(archive.offset)
                whole = stream.read(tarfile.BLOCKSIZE) == tarfile.NUL * tarfile.BLOCKSIZE
        except tarfile.TarError:
            whole = False
    if not whole:
        raise Problem(
            f"the engine did not copy all of {file.stem}", "look at the engine's log, and try again"
        )


def _write(file: Path, text: str) -> None:
    with _private(file) as descriptor, open(descriptor, "w", encoding="utf-8", closefd=False) as stream:
        stream.write(text)


@contextmanager
def _private(file: Path) -> Iterator[int]:
    descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        yield descriptor
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def read(folder: Path, stack: Stack) -> Backup:
    """The backup in a folder, for this stack and whole."""
    try:
        manifest = json.loads((folder / _MANIFEST).read_text(encoding="utf-8"))
        backup = Backup(folder, manifest["stack"], manifest["files"], manifest["versions"])
    except (OSError, ValueError, KeyError, TypeError):
        there = sorted(str(file.parent) for file in FOLDER.glob(f"*/{_MANIFEST}"))
        raise Problem(
            f"{folder} is no backup: it has no readable {_MANIFEST}",
            f"name one of {', '.join(there)}" if there else f"name a folder that {stack.make('backup')} made",
        ) from None
    if backup.stack != stack.name:
        raise Problem(
            f"{folder} is a backup of the stack {backup.stack}",
            Stack(backup.stack).make("restore", str(folder)),
        )
    for name, size in backup.files.items():
        file = folder / name
        if not file.is_file() or file.stat().st_size != size:
            raise Problem(f"{file} is not as it was saved, {size} bytes long", "copy the backup again")
    return backup
