"""Pulumi's locks of a state kept in files: who holds one, what a killed run left of it, and one for what is no `pulumi`."""

from __future__ import annotations

import getpass
import json
import os
import signal
import socket
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from scripts.bootstrap.stack import PROJECT, Stack, state_folder
from scripts.machine.problems import Problem
from scripts.machine.processes import Say, ask

_COMMANDS = "scripts.bootstrap"


@dataclass(frozen=True)
class Lock:
    """Who is at work on a stack."""

    file: Path
    pid: int
    host: str
    user: str


@contextmanager
def held(stack: Stack, say: Say) -> Iterator[None]:
    """Meanwhile no `pulumi` and no other command changes the stack; refused where one is at it.

    Where the state is kept in files. The file is as Pulumi writes it (pkg/backend/diy/lock.go), which looks for others'
    before and after it has written its own.
    """
    folder = _folder(stack)
    if folder is None:
        yield
        return
    clear(stack, say)
    folder.mkdir(parents=True, exist_ok=True)
    own = folder / f"{uuid.uuid4()}.json"
    content = {
        "pid": os.getpid(),
        "username": _user(),
        "hostname": socket.gethostname(),
        "timestamp": time.strftime("%FT%TZ", time.gmtime()),
    }
    try:
        own.write_text(json.dumps(content), encoding="utf-8")
        _refuse(stack, [lock for lock in found(stack) if lock.file != own])
        yield
    finally:
        own.unlink(missing_ok=True)


def clear(stack: Stack, say: Say) -> None:
    """Remove what killed runs left; refuse where a run is at work."""
    _refuse(stack, list(found(stack)))
    if not any(found(stack)):
        return
    say("Leftovers: removing the lock of a run that was killed")
    _end_plugins()
    command = stack.command("cancel", "--yes", "--non-interactive")
    answer = ask(command, environment=stack.environment, cwd=stack.root)
    if answer.code:
        raise Problem(f"`pulumi cancel` failed: {answer.reason}", f"see {_folder(stack)}")


def found(stack: Stack) -> Iterator[Lock]:
    """The locks that there are, of whatever is at work or was killed."""
    folder = _folder(stack)
    for file in folder.glob("*.json") if folder else ():
        try:
            content = json.loads(file.read_text(encoding="utf-8"))
            yield Lock(file, int(content["pid"]), str(content["hostname"]), str(content.get("username", "")))
        except (OSError, ValueError, KeyError):
            continue  # it went in this moment


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a number without a name, as in containers
        return str(os.getuid())


def _folder(stack: Stack) -> Path | None:
    state = state_folder(stack.root)
    return state / ".pulumi" / "locks" / "organization" / PROJECT / stack.name if state else None


def _refuse(stack: Stack, others: list[Lock]) -> None:
    for lock in others:
        if lock.host != socket.gethostname():
            raise Problem(
                f"the stack {stack.name} is locked by {lock.user} on {lock.host} (pid {lock.pid})",
                f"wait for that run; where it no longer exists: pulumi cancel --stack {stack.name}",
            )
        if _is_at_work(lock.pid):
            raise Problem(
                f"another run is at work on the stack {stack.name} (pid {lock.pid})",
                "wait for it, or stop it by Ctrl-C",
            )


def _is_at_work(pid: int) -> bool:
    """Whether the process runs and is Pulumi or one of these commands; a number is given to others later."""
    if pid == os.getpid():  # in a new container processes have the same numbers again
        return False
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    answer = ask(["ps", "-ww", "-o", "comm=", "-o", "args=", "-p", str(pid)])
    program, _, arguments = answer.out.partition(" ")
    return answer.code == 127 or "pulumi" in program or _COMMANDS in arguments


def _end_plugins() -> None:
    """End what a killed Pulumi left running: its plugins and language host go on with what they were at, or stay."""
    # An -o for each column: other systems than Linux take a comma for a part of the heading.
    columns = ["-o", "pid=", "-o", "ppid=", "-o", "args="]
    listed = [line.split(maxsplit=2) for line in ask(["ps", "-axww", *columns]).out.splitlines()]
    parents = {int(pid): int(parent) for pid, parent, _ in listed}
    commands = {int(pid): command for pid, _, command in listed}
    orphans = {
        pid
        for pid, command in commands.items()
        if any(
            Path(word).name.startswith(("pulumi-resource-", "pulumi-language-"))
            for word in command.split()[:2]
        )
        and "pulumi" not in commands.get(parents[pid], "")
    }
    for pid, parent in parents.items():
        if pid in orphans or parent in orphans:
            with suppress(ProcessLookupError, PermissionError):
                os.kill(pid, signal.SIGKILL)
