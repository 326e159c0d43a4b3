"""Who is at work on a stack: Pulumi's locks, and those that these commands hold as it does."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from scripts.bootstrap import locks
from scripts.bootstrap.stack import Stack
from scripts.machine.problems import Problem
from tests.conditions import until
from tests.unit.bootstrap.conftest import Program


def _folder(stack: Stack) -> Path:
    return stack.root / ".pulumi-state" / ".pulumi" / "locks" / "organization" / "mlops-stack" / "dev"


def _locked(stack: Stack, pid: int, host: str) -> None:
    _folder(stack).mkdir(parents=True, exist_ok=True)
    (_folder(stack) / "1.json").write_text(json.dumps({"pid": pid, "hostname": host, "username": "alice"}))


@pytest.fixture(params=["pulumi", "these commands"])
def at_work(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[int]:
    """A process that may hold a lock."""
    if request.param == "pulumi":
        program = tmp_path / "pulumi"
        shutil.copy("/bin/sleep", program)
        command = [str(program), "600"]
    else:
        command = [sys.executable, "-c", "input()", "-m", "scripts.bootstrap", "backup"]
    process = subprocess.Popen(command, stdin=subprocess.PIPE)
    yield process.pid
    process.kill()
    process.wait()


def test_the_lock_of_a_dead_run_is_cancelled(stack: Stack, pulumi: Program, said: list[str]) -> None:
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    for pid in (ended.pid, os.getpid()):  # nobody's number; and one that something else got since
        before = len(pulumi.calls)
        _locked(stack, pid, socket.gethostname())
        locks.clear(stack, said.append)
        assert pulumi.calls[before].startswith("cancel --yes")


def test_a_number_that_this_process_has_now_was_anothers(
    stack: Stack, pulumi: Program, said: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(locks, "_COMMANDS", "pytest")
    _locked(stack, os.getpid(), socket.gethostname())
    locks.clear(stack, said.append)
    assert pulumi.calls[0].startswith("cancel --yes")


def test_a_live_or_far_lock_stands(stack: Stack, pulumi: Program, said: list[str], at_work: int) -> None:
    for pid, host, says in (
        (at_work, socket.gethostname(), "another run"),
        (1, "elsewhere", "alice on elsewhere"),
    ):
        _locked(stack, pid, host)
        with pytest.raises(Problem, match=says):
            locks.clear(stack, said.append)
        with pytest.raises(Problem, match=says), locks.held(stack, said.append):
            pytest.fail("two at a time")
    assert pulumi.calls == []
    assert [file.name for file in _folder(stack).iterdir()] == ["1.json"]


@pytest.mark.usefixtures("pulumi")
def test_it_is_held_until_the_end_whatever_that_is(stack: Stack, said: list[str]) -> None:
    def interrupted() -> None:
        with locks.held(stack, said.append):
            (lock,) = locks.found(stack)
            assert (lock.pid, lock.host) == (os.getpid(), socket.gethostname())
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert list(_folder(stack).iterdir()) == []


def test_a_state_elsewhere_has_no_files_to_hold(
    stack: Stack, pulumi: Program, said: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PULUMI_BACKEND_URL", "s3://states")
    with locks.held(stack, said.append):
        assert list(locks.found(stack)) == []
    assert pulumi.calls == []
    assert not _folder(stack).exists()


@pytest.mark.parametrize("name", ["pulumi-resource-docker", "pulumi-language-python"])
def test_what_a_killed_run_left_running_is_ended_and_anothers_is_not(tmp_path: Path, name: str) -> None:
    plugin = tmp_path / name
    plugin.write_text("#!/bin/sh\nsleep 60\n")
    plugin.chmod(0o755)
    cli = tmp_path / "pulumi"
    cli.write_text(f'#!/bin/sh\n"{plugin}" &\necho $!\nwait\n')
    cli.chmod(0o755)
    killed, running = (subprocess.Popen([str(cli)], stdout=subprocess.PIPE, text=True) for _ in range(2))
    plugins = [int(process.stdout.readline()) for process in (killed, running) if process.stdout]
    try:
        killed.kill()
        killed.wait()
        locks._end_plugins()
        until(lambda: not _runs(plugins[0]), "the end of the orphan")
        assert _runs(plugins[1])
    finally:
        running.kill()
        running.wait()
        locks._end_plugins()


def _runs(pid: int) -> bool:
    listed = subprocess.run(
        ["ps", "-o", "stat=", "-p", str(pid)], capture_output=True, text=True, check=False
    )
    return bool(listed.stdout.strip()) and not listed.stdout.startswith("Z")
