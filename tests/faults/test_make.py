"""`make` itself, on a copy of the checkout: interrupted by Ctrl-C, gone on with, and undone."""

from __future__ import annotations

import os
import signal
import time

import pytest

from tests.checkout import Checkout
from tests.conditions import until


def test_ctrl_c_ends_it_in_order_and_the_same_command_goes_on(checkout: Checkout) -> None:
    process = checkout.start("up")
    try:
        until(checkout.containers, "the first container")
        os.killpg(process.pid, signal.SIGINT)
        printed, _ = process.communicate(timeout=120)
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
    assert process.returncode == 130, printed
    assert f"interrupted; `make up STACK={checkout.stack}` goes on from here" in printed
    assert checkout.locks() == []

    printed = checkout.make("up")
    assert "log in as admin" in printed
    assert "mlflow-server" in checkout.make("status")
    printed = checkout.make("destroy")
    assert "Kept, with the secrets that unlock them" in printed
    assert "log in as admin" in checkout.make("up")
    checkout.make("destroy", "--delete-data")
    assert checkout.left_over() == []


@pytest.mark.thorough
def test_a_large_team_that_is_cut_short_is_gone_on_with(checkout: Checkout) -> None:
    held = {"experiments": {"0": "READ", "churn": "EDIT"}, "models": {"scores": "READ"}}
    checkout.configure(mlflowUsers=[{"name": f"user-{number:03}", **held} for number in range(60)])
    process = checkout.start("up")
    assert process.stdout
    try:
        # In the middle of the team.
        until(
            lambda: "user-030" in (process.stdout.readline() if process.stdout else ""), "a user", seconds=300
        )
        os.killpg(process.pid, signal.SIGKILL)
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    began = time.monotonic()
    checkout.make("up")
    went_on = time.monotonic() - began
    checkout.make("up", "--expect-no-changes")
    began = time.monotonic()
    assert "forgetting" in checkout.make("destroy", "--delete-data")
    print(f"went on in {went_on:.1f} s, destroyed in {time.monotonic() - began:.1f} s")
    assert checkout.left_over() == []
