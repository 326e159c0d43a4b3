"""What changes behind the state's back: `make up` finds it and puts it right, and no data is lost."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from scripts.bootstrap import leftovers
from scripts.bootstrap.processes import say
from scripts.bootstrap.stack import Stack
from tests.deployment import RUN_ONCE, SERVICES, Deployment
from tests.faults.writers import MlflowWriter
from tests.integration.images.engine import docker

STORE = "mlflow-minio"


@pytest.fixture(scope="module")
def up(empty: Deployment) -> Deployment:
    empty.up().ok()
    return empty


@pytest.fixture(scope="module")
def written(up: Deployment) -> MlflowWriter:
    """Something in both stores of MLflow."""
    writer = MlflowWriter.of(up)
    writer.write(1)
    assert len(writer.acknowledged) == 2
    return writer


def _removed(up: Deployment) -> None:
    docker("rm", "--force", up.container(STORE))


def _stopped(up: Deployment) -> None:
    docker("stop", up.container("mlflow-server"))


def _given_another_environment(up: Deployment) -> None:
    """As tools do that make a container again with its labels."""
    found = up.inspect(STORE)
    labels = [f"--label={name}={value}" for name, value in found["Config"]["Labels"].items()]
    docker("rm", "--force", up.container(STORE))
    docker("create", "--name", up.container(STORE), *labels, "--env=MINIO_BROWSER=off", found["Image"])


def _given_less_memory(up: Deployment) -> None:
    docker("update", "--memory=300m", "--memory-swap=300m", up.container(STORE))


def _detached(up: Deployment) -> None:
    for network in up.inspect(STORE)["NetworkSettings"]["Networks"]:
        docker("network", "disconnect", network, up.container(STORE))


def _without_network(up: Deployment) -> None:
    name = f"{up.prefix}mlops-stack-mlflow"
    for container in up.containers():
        docker("network", "disconnect", "--force", name, container, check=False)
    docker("network", "rm", name)


def _run_once_container_removed(up: Deployment) -> None:
    docker("rm", up.container("mlflow-create-bucket"))


def _volume_without_labels(up: Deployment) -> None:
    """As a restore by hand leaves it."""
    volume, other = f"{up.prefix}mlflow-minio-data", f"{up.prefix}copy"
    image = up.inspect(STORE)["Image"]
    docker("rm", "--force", up.container(STORE))

    def copy(source: str, target: str) -> None:
        mounts = ("--volume", f"{source}:/from", "--volume", f"{target}:/to")
        docker("run", "--rm", "--user=0", "--entrypoint=cp", *mounts, image, "-a", "/from/.", "/to/")

    docker("volume", "create", other)
    copy(volume, other)
    docker("volume", "rm", volume)
    docker("volume", "create", volume)
    copy(other, volume)
    docker("volume", "rm", other)


@pytest.mark.parametrize(
    "change",
    [
        _removed,
        _stopped,
        _given_another_environment,
        _given_less_memory,
        _detached,
        _without_network,
        _run_once_container_removed,
        _volume_without_labels,
    ],
)
def test_it_is_found_and_put_right(
    up: Deployment, stack: Stack, written: MlflowWriter, change: Callable[[Deployment], None]
) -> None:
    before = _looks(up)
    change(up)
    leftovers.clear(stack, say)
    up.up("--refresh").ok()
    assert _looks(up) == before
    assert written.lost() == []
    up.up("--refresh", "--expect-no-changes").ok()


def _looks(up: Deployment) -> dict[str, object]:
    """What of the containers is declared, and whether they are well."""
    looks: dict[str, object] = {}
    for service in SERVICES["mlflow"]:
        found = up.inspect(service)
        declared = (sorted(found["Config"]["Env"]), found["HostConfig"]["Memory"])
        if service in RUN_ONCE:
            looks[service] = (*declared, found["State"]["ExitCode"])
        else:
            networks = sorted(found["NetworkSettings"]["Networks"])
            looks[service] = (*declared, found["State"]["Health"]["Status"], networks)
    return looks
