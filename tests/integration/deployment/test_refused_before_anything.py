"""What the machine or the settings do not allow is said by the real CLI before anything is made."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from typing import Any

import pytest

from tests.conditions import free_port
from tests.deployment import Deployment
from tests.engine import docker


def _refused(stack: Deployment, *words: str) -> None:
    done = stack.up()
    assert done.code != 0
    for word in (*words, "fix:", "nothing has been changed"):
        assert word in done.text
    assert "Traceback" not in done.text
    assert stack.left_over() == []
    assert '"resources"' not in stack.export() or "docker:" not in stack.export()


@pytest.fixture
def listener() -> Iterator[int]:
    with socket.socket() as server:
        server.bind(("127.0.0.1", free_port()))
        server.listen()
        yield server.getsockname()[1]


def test_a_busy_port_is_named_with_its_setting(empty: Deployment, listener: int) -> None:
    with empty.changed(mlflowPort=listener):
        _refused(empty, "mlops-stack:mlflowPort", str(listener))


def test_a_name_of_another_owner_is_not_touched(empty: Deployment, images: dict[str, str]) -> None:
    name = empty.container("mlflow-minio")
    docker("create", "--name", name, images["mc"])
    try:
        done = empty.up()
        assert done.code != 0
        assert "mlops-stack:namePrefix" in done.text
        assert name in done.text
        assert list(empty.containers()) == [name]
    finally:
        docker("rm", name)


@pytest.mark.parametrize(
    ("name", "owner", "says"),
    [
        ("mlflow-minio-data", "mlops-stack/another", "belongs to the stack mlops-stack/another"),
        ("b-mlflow-minio-data", "mlops-stack/{stack}", "has data in volumes whose names begin with"),
    ],
)
def test_data_of_another_stack_or_under_another_prefix_is_left_alone(
    empty: Deployment, name: str, owner: str, says: str
) -> None:
    volume = empty.container(name)
    docker("volume", "create", f"--label=mlops-stack.stack={owner.format(stack=empty.stack)}", volume)
    try:
        done = empty.up()
        assert done.code != 0
        assert "mlops-stack:namePrefix" in done.text
        assert says in done.text
        assert empty.left_over() == [volume]
    finally:
        docker("volume", "rm", volume)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"mlflowPort": 70000}, ("mlops-stack:mlflowPort", "65535")),
        ({"mlflowVersion": "3.5.0"}, ("mlops-stack:mlflowVersion", "3.4.0, 3.17.2")),
        ({"mlflowMemory": "2 gigabytes"}, ("mlops-stack:mlflowMemory", "512m or 2g")),
        ({"mlflowPrt": "5000"}, ("mlops-stack:mlflowPrt", "did you mean mlflowPort")),
        (
            {"mlflowAdminPassword": "in plain text"},
            ("mlops-stack:mlflowAdminPassword", "--secret"),
        ),
    ],
)
def test_a_wrong_setting_is_named(
    empty: Deployment, settings: dict[str, Any], words: tuple[str, ...]
) -> None:
    with empty.changed(**settings):
        _refused(empty, *words)
