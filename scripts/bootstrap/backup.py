"""A stack's data, secrets and settings as files of one folder, and the way back."""

from __future__ import annotations

import json
import os
import re
import shutil
import tarfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from scripts.bootstrap import engine, leftovers, power
from scripts.bootstrap.leftovers import Found
from scripts.bootstrap.stack import PASSPHRASE, Stack
from scripts.machine.paths import ROOT
from scripts.machine.problems import Problem
from scripts.machine.processes import Say

FOLDER = ROOT / "backups"
REPLACE, KEEP_DATA = "--replace", "--keep-data"
_MANIFEST, _STATE, _SETTINGS = "backup.json", "state.json", "settings.yaml"

_DATABASES = ("mlflow-postgres", "mlflow-postgres-auth", "langfuse-postgres")
_DUMP = 'exec pg_dump --format=custom --username="$POSTGRES_USER" "$POSTGRES_DB"'
# Into another database first: where the dump does not go in, what is there stays.
_RESTORE = """\
export PGUSER="$POSTGRES_USER"
new="$POSTGRES_DB-restoring"
dropdb --if-exists --force "$new"
createdb "$new"
pg_restore --exit-on-error --dbname="$new"
dropdb --force "$POSTGRES_DB"
psql --quiet --dbname=postgres --command="ALTER DATABASE \\"$new\\" RENAME TO \\"$POSTGRES_DB\\""
"""
_CLICKHOUSE, _WORKER = "langfuse-clickhouse", "langfuse-worker"
# In this order: what a database names was written to the object store before.
_FOLDERS = {_CLICKHOUSE: "/var/lib/clickhouse", "mlflow-minio": "/data", "langfuse-minio": "/data"}
# ClickHouse merges its files all the time, and Langfuse's worker would in the end give up what ClickHouse does not take.
_AT_REST = {_CLICKHOUSE: (_WORKER, _CLICKHOUSE)}
# The queue of what Langfuse has yet to take in, which belongs to the data that goes.
_QUEUE, _QUEUE_FOLDER = "langfuse-redis", "/data"
_EMPTY = 'cd "$0" && rm -rf ..?* .[!.]* *'
# What an older release cannot read.
_VERSIONED = ("mlflow-server", "langfuse-web")
_MANAGED = (
    *("mlflowDatabaseUrl", "mlflowAuthDatabaseUrl", "mlflowS3Endpoint", "langfuseDatabaseUrl"),
    *("langfuseClickhouseUrl", "langfuseS3Endpoint"),
)
_FIX = "put right what it says, and do it again"
_RANDOM = ("random:", "pulumi:providers:random")


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


# -- There ---------------------------------------------------------------------------------------------------


def save(stack: Stack, into: Path, say: Say) -> Path:
    """Make a backup below the folder while the stack runs; where it is. One that is cut short leaves none."""
    found = {item.service: item for item in leftovers.containers(stack)}
    stores = [service for service in (*_DATABASES, *_FOLDERS) if service in found]
    if not stores:
        raise Problem(f"the stack {stack.name} has no stores on this engine", stack.make("up"))
    if resting := [found[service].name for service in stores if found[service].status != "running"]:
        raise Problem(f"{', '.join(resting)} does not run", stack.make("start"))
    exported = stack.exported()
    if not leftovers.identity_of(_resources(exported)):
        raise Problem(
            f"the state of the stack {stack.name} was lost, and with it the secrets that unlock the data",
            'docs/operations.md, "The state is lost", tells how to go on; back up then',
        )
    folder = into / f"{stack.name}-{time.strftime('%Y%m%d-%H%M%S')}"
    partial = folder.with_name(f"{folder.name}.partial")
    try:
        partial.mkdir(mode=0o700, parents=True)
    except OSError as error:
        raise Problem(f"{partial} cannot be made: {error.strerror}", "name another folder in ARGS") from None
    try:
        _write(partial / _STATE, json.dumps(exported))
        _write(partial / _SETTINGS, stack.config_file.read_text(encoding="utf-8"))
        _save(stack, found, partial, say)
        partial.rename(folder)
    except BaseException:
        shutil.rmtree(partial)
        raise
    for key in filter(stack.sets, _MANAGED):
        say(f"Not in it: what {key} names; its own backups have it")
    say(
        f"Backup: {folder}, which has all data in plain text. Keep a copy of it elsewhere, and {PASSPHRASE} in another place\n"
        f"{stack.make('restore')} ARGS={folder} brings it back"
    )
    return folder


def _save(stack: Stack, found: Mapping[str, Found], folder: Path, say: Say) -> None:
    for service in _DATABASES:
        if service in found:
            _take(["exec", found[service].id, "sh", "-c", _DUMP], folder / f"{service}.dump", say)
    for service, path in _FOLDERS.items():
        if service not in found:
            continue
        file = folder / f"{service}.tar"
        resting = [found[name] for name in _AT_REST.get(service, ()) if name in found]
        with power.resting(resting, stack, say):
            _take(["cp", f"{found[service].id}:{path}", "-"], file, say)
        _check_whole(file)
    files = {file.name: file.stat().st_size for file in sorted(folder.iterdir())}
    versions = {service: found[service].version for service in _VERSIONED if service in found}
    manifest = {"stack": stack.name, "made": time.strftime("%FT%TZ", time.gmtime()), "versions": versions}
    _write(folder / _MANIFEST, json.dumps({**manifest, "files": files}, indent=2))


def _take(command: Sequence[str], file: Path, say: Say) -> None:
    with _private(file) as descriptor:
        engine.docker(*command, sink=descriptor, fix=_FIX)
    say(f"Saved {file.name}, {file.stat().st_size / (1 << 20):.1f} MiB")


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
    with _private(file) as descriptor:
        os.write(descriptor, text.encode())


@contextmanager
def _private(file: Path) -> Iterator[int]:
    descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


# -- And back ------------------------------------------------------------------------------------------------


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
            f"make restore STACK={backup.stack} ARGS={folder}",
        )
    for name, size in backup.files.items():
        file = folder / name
        if not file.is_file() or file.stat().st_size != size:
            raise Problem(f"{file} is not as it was saved, {size} bytes long", "copy the backup again")
    return backup


def take_settings(backup: Backup, stack: Stack, say: Say) -> None:
    """The backup's settings, where the checkout has none for the stack."""
    file = stack.config_file
    settings = (backup.folder / _SETTINGS).read_text(encoding="utf-8")
    if file.is_file() and (text := file.read_text(encoding="utf-8")) != settings and ":" in _entries(text):
        say(f"Settings: those of {file.name}; the backup's are in {backup.folder / _SETTINGS}")
        return
    file.write_text(settings, encoding="utf-8")


def _entries(settings: str) -> str:
    """What a file of settings says beyond comments, and that there are none."""
    lines = (line.partition("#")[0].strip() for line in settings.splitlines())
    return "\n".join(line for line in lines if line not in ("", "config:", "config: {}"))


def take_secrets(backup: Backup, stack: Stack, *, replace: bool, keep_data: bool) -> None:
    """Give the stack the backup's secrets, which unlock its data, unless it has them. Refuse what would cost other data."""
    theirs = leftovers.identity_of(_resources(backup.state))
    ours = leftovers.identity_of(_resources(stack.exported()))
    if ours and ours != theirs:
        raise Problem(
            f"the stack {stack.name} has secrets of its own, so that it is another one than that of {backup.folder}",
            f"to put the backup in its place, remove it WITH ITS DATA: {stack.make('destroy')} ARGS=--delete-data",
        )
    leftovers.refuse_foreign(stack, theirs, leftovers.containers(stack))
    if not keep_data and not replace and (volumes := leftovers.volumes(stack)):
        raise Problem(
            f"the engine has data of the stack {stack.name}, which the backup would replace: {', '.join(volumes)}",
            f"to replace it: {stack.make('restore')} ARGS='{backup.folder} {REPLACE}'. To go on with it, and take no more than the "
            f"lost state's secrets out of the backup: {stack.make('restore')} ARGS='{backup.folder} {KEEP_DATA}'",
        )
    if not ours:
        stack.import_(_secrets_alone(backup.state))


def _resources(exported: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    return (exported.get("deployment") or {}).get("resources") or []


def _secrets_alone(exported: Mapping[str, Any]) -> dict[str, Any]:
    """A state that has what was generated and nothing of what is on an engine."""
    resources = _resources(exported)
    parents = {item["urn"]: item.get("parent") for item in resources}
    kept: set[str] = set()
    for item in resources:
        urn = item["urn"] if item["type"].startswith(_RANDOM) else None
        while urn and urn not in kept:
            kept.add(urn)
            urn = parents[urn]
    deployment = {
        **exported["deployment"],
        "resources": [item for item in resources if item["urn"] in kept],
        "pending_operations": [],
    }
    return {**exported, "deployment": deployment}


def put_back(backup: Backup, stack: Stack, say: Say) -> None:
    """Replace the data of a stack that runs by the backup's. Servers are stopped meanwhile; repeated, it starts anew."""
    found = {item.service: item for item in leftovers.containers(stack)}
    _refuse_unreadable(backup, stack, found)
    power.stop_servers(stack, say)
    for service in _DATABASES:
        if (file := backup.file(service)) is not None:
            say(f"Restoring {found[service].name}")
            _feed(["exec", "--interactive", found[service].id, "sh", "-euc", _RESTORE], file)
    for service, path in _FOLDERS.items():
        if (file := backup.file(service)) is not None:
            say(f"Restoring {found[service].name}")
            power.stop_these([found[service]], say)
            _empty(found[service], path)
            _feed(["cp", "-", f"{found[service].id}:{Path(path).parent}"], file)
    if _QUEUE in found and backup.file(_CLICKHOUSE) is not None:
        power.stop_these([found[_QUEUE]], say)
        _empty(found[_QUEUE], _QUEUE_FOLDER)
    power.start(stack, say)


def _refuse_unreadable(backup: Backup, stack: Stack, found: Mapping[str, Found]) -> None:
    stores = {Path(name).stem for name in backup.files if name.endswith((".dump", ".tar"))}
    if missing := sorted(stores - set(found)):
        raise Problem(
            f"the backup has data of {', '.join(missing)}, which the stack does not have",
            f"declare them, as {backup.folder / _SETTINGS} does, and {stack.make('up')}",
        )
    for service, version in backup.versions.items():
        before, after = _release(version), _release(found[service].version) if service in found else ()
        if before and after and after < before:
            raise Problem(
                f"{service} {found[service].version} cannot read what {version} wrote",
                f"set its version, as {backup.folder / _SETTINGS} does, and {stack.make('up')}",
            )


def _release(version: str) -> tuple[int, ...]:
    """Major and minor, between which databases change; empty for what is no release, as a digest."""
    found = re.match(r"(\d+)\.(\d+)", version)
    return tuple(map(int, found.groups())) if found else ()


def _empty(item: Found, path: str) -> None:
    """Remove everything in the volume of a store that is stopped, by its own image's shell."""
    with_volumes = ("run", "--rm", "--network", "none", "--user", "0", "--volumes-from", item.id)
    engine.docker(*with_volumes, "--entrypoint", "/bin/sh", item.image, "-c", _EMPTY, path, fix=_FIX)


def _feed(command: Sequence[str], file: Path) -> None:
    with file.open("rb") as stream:
        engine.docker(*command, source=stream.fileno(), fix=_FIX)
