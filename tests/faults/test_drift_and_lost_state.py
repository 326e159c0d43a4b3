"""What changes behind the state's back, and what is left when the state itself is gone."""

from __future__ import annotations

import shutil

import pytest

from scripts.bootstrap import leftovers
from scripts.bootstrap.problems import Problem
from scripts.bootstrap.processes import say
from scripts.bootstrap.stack import Stack
from tests.deployment import Deployment
from tests.integration.images.engine import docker


@pytest.fixture(scope="module")
def up(empty: Deployment) -> Deployment:
    empty.up().ok()
    return empty


def test_a_network_that_was_detached_is_attached_again(up: Deployment, stack: Stack) -> None:
    networks = set(up.inspect("mlflow-minio")["NetworkSettings"]["Networks"])
    for name in networks:
        docker("network", "disconnect", name, up.container("mlflow-minio"))
    leftovers.clear(stack, say)
    up.up("--refresh").ok()
    assert set(up.inspect("mlflow-minio")["NetworkSettings"]["Networks"]) == networks
    assert up.inspect("mlflow-server")["State"]["Health"]["Status"] == "healthy"


def test_without_its_state_nothing_is_touched(up: Deployment, stack: Stack) -> None:
    before = up.containers()
    shutil.rmtree(up.folder / ".pulumi-state")
    (up.folder / ".pulumi-state").mkdir()
    up.pulumi("stack", "init", up.stack).ok()
    with pytest.raises(Problem, match="was lost"):
        leftovers.clear(stack, say)
    assert up.up().code != 0
    assert up.containers() == before
