"""`pulumi up` cut short: what `make up` does next brings the stack about, with nothing left over and nothing in the way."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import time

import pytest

from scripts.bootstrap import leftovers, locks
from scripts.bootstrap.stack import Stack
from scripts.machine.problems import Problem
from scripts.machine.processes import say
from tests.conditions import until
from tests.deployment import RUNNING, SERVICES, Deployment, make_up

# From the first resource to about as long as the deployment takes; chance chooses a moment of it.
_FIRST, _LAST = 1.0, 15.0


def _start(stack: Deployment, command: str = "up") -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        ["pulumi", command, "--yes", "--skip-preview", "--non-interactive", "--stack", stack.stack],
        cwd=stack.folder,
        env=stack.environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )


def _end(process: subprocess.Popen[bytes]) -> None:
    """Kill the CLI with the program; its plugins, in groups of their own, go on."""
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def _whole(stack: Deployment) -> None:
    assert set(stack.containers()) == {stack.container(service) for service in SERVICES["mlflow"]}
    for service in RUNNING["mlflow"]:
        assert stack.healthy(service), service
    kinds = sorted(name.removeprefix(stack.prefix) for name in stack.left_over())
    assert len(kinds) == len(set(kinds)), f"something is there twice: {kinds}"


def test_a_killed_up_is_brought_to_its_end_by_the_next_one(
    empty: Deployment, stack: Stack, chance: random.Random, request: pytest.FixtureRequest
) -> None:
    kills = 0
    while kills < request.config.getoption("--kills"):
        if _killed(empty, "up", chance.uniform(_FIRST, _LAST), stack):
            kills += 1
        make_up(empty, stack)
        _whole(empty)
        if chance.random() < 0.5 and _killed(empty, "destroy", chance.uniform(_FIRST, _LAST / 3), stack):
            kills += 1
            leftovers.clear(stack, say, removing=True)
        empty.pulumi("destroy", "--yes", "--skip-preview").ok()
        assert empty.left_over() == []


def test_a_killed_destroy_is_undone_by_the_next_up(
    empty: Deployment, stack: Stack, chance: random.Random
) -> None:
    empty.up().ok()
    _killed(empty, "destroy", chance.uniform(_FIRST, _LAST / 3), stack)
    make_up(empty, stack)
    _whole(empty)
    empty.pulumi("destroy", "--yes", "--skip-preview").ok()
    assert empty.left_over() == []


def _killed(empty: Deployment, command: str, seconds: float, stack: Stack) -> bool:
    """Kill the command after so many seconds; False where it ended before."""
    process = _start(empty, command)
    try:
        process.wait(timeout=seconds)  # not a condition: the moment is what is tested
    except subprocess.TimeoutExpired:
        _end(process)
        print(f"{command} killed after {seconds:.1f} s: {_left_behind(empty, stack)}")
        return True
    return False


def _left_behind(empty: Deployment, stack: Stack) -> str:
    """What the engine has and the state does not, and what the state knows to be half-made."""
    state = stack.export()
    known = {item.get("id") for item in state.get("resources") or []}
    there = empty.containers()
    return (
        f"{len(there)} containers were there, {len(set(there.values()) - known)} of them unknown to the state, "
        f"{len(state.get('pending_operations') or [])} operations pending"
    )


def test_of_two_at_once_the_second_is_refused_and_the_first_goes_on(empty: Deployment, stack: Stack) -> None:
    first = _start(empty)
    try:
        until(lambda: any(locks.found(stack)) and empty.containers(), "the first one at work")
        second = empty.up()
        assert second.code != 0
        assert "locked" in second.text
        with pytest.raises(Problem, match="another run is at work"):
            leftovers.clear(stack, say)
        assert first.wait(timeout=300) == 0
    finally:
        if first.poll() is None:
            _end(first)
    _whole(empty)


def test_pulumi_changes_nothing_while_data_is_copied(empty: Deployment, stack: Stack) -> None:
    before = empty.containers()
    with locks.held(stack, say):
        refused = empty.up()
    assert refused.code != 0
    assert "the stack is currently locked by 1 lock(s)" in refused.text
    assert empty.containers() == before
    empty.up().ok()


def test_a_wrong_passphrase_is_refused_before_anything_changes(empty: Deployment) -> None:
    before = empty.containers()
    wrong = {**empty.environment, "PULUMI_CONFIG_PASSPHRASE": "another one"}
    done = subprocess.run(
        ["pulumi", "up", "--yes", "--skip-preview", "--non-interactive", "--stack", empty.stack],
        cwd=empty.folder,
        env=wrong,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode != 0
    assert "incorrect passphrase" in done.stdout + done.stderr
    assert empty.containers() == before


def test_ctrl_c_ends_it_in_order_and_the_next_one_goes_on(empty: Deployment, stack: Stack) -> None:
    empty.pulumi("destroy", "--yes", "--skip-preview").ok()
    process = _start(empty)
    try:
        until(empty.containers, "the first container")
        started = time.monotonic()
        os.killpg(process.pid, signal.SIGINT)
        assert process.wait(timeout=120) != 0
        print(f"ended {time.monotonic() - started:.1f} s after Ctrl-C")
    finally:
        if process.poll() is None:
            _end(process)
    make_up(empty, stack)
    _whole(empty)
    empty.pulumi("destroy", "--yes", "--skip-preview").ok()
