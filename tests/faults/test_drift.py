"""What changes behind the state's back: `make up` finds it and puts it right, and no data is lost."""

from __future__ import annotations

import time
from collections.abc import Callable

import pytest

from scripts.bootstrap import leftovers
from scripts.bootstrap.stack import Stack
from tests.conditions import until
from tests.deployment import RUN_ONCE, SERVICES, Deployment, make_up
from tests.engine import docker
from tests.faults.writers import MlflowWriter

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


def _paused(up: Deployment) -> None:
    docker("pause", up.container("mlflow-server"))


def _given_another_environment(up: Deployment) -> None:
    """As tools do that make a container again from what they see of it, labels included."""
    found = up.inspect(STORE)
    seen = {
        "--label": [f"{name}={value}" for name, value in found["Config"]["Labels"].items()],
        "--env": [*found["Config"]["Env"], "MINIO_BROWSER=off"],
        "--volume": [f"{mount['Name']}:{mount['Destination']}" for mount in found["Mounts"]],
        "--network": list(found["NetworkSettings"]["Networks"]),
    }
    options = [f"{option}={value}" for option, values in seen.items() for value in values]
    docker("rm", "--force", up.container(STORE))
    docker(
        "run", "--detach", "--name", up.container(STORE), *options, found["Image"], "minio", "server", "/data"
    )


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
    _volume_made_again(up)


def _volume_of_another_state(up: Deployment) -> None:
    """As a restore leaves it that keeps labels, of a stack whose state was lost."""
    owner = up.inspect(STORE)["Config"]["Labels"][leftovers.STACK_LABEL]
    _volume_made_again(up, f"--label={leftovers.STACK_LABEL}={owner}", f"--label={leftovers.ID_LABEL}=0000")


def _volume_made_again(up: Deployment, *labels: str) -> None:
    volume, other = f"{up.prefix}mlflow-minio-data", f"{up.prefix}copy"
    image = up.inspect(STORE)["Image"]
    docker("rm", "--force", up.container(STORE))

    def copy(source: str, target: str) -> None:
        mounts = ("--volume", f"{source}:/from", "--volume", f"{target}:/to")
        docker("run", "--rm", "--user=0", "--entrypoint=cp", *mounts, image, "-a", "/from/.", "/to/")

    docker("volume", "create", other)
    copy(volume, other)
    docker("volume", "rm", volume)
    docker("volume", "create", *labels, volume)
    copy(other, volume)
    docker("volume", "rm", other)


@pytest.mark.parametrize(
    "change",
    [
        _removed,
        _stopped,
        _paused,
        _given_another_environment,
        _given_less_memory,
        _detached,
        _without_network,
        _run_once_container_removed,
        _volume_without_labels,
        _volume_of_another_state,
    ],
)
def test_it_is_found_and_put_right(
    up: Deployment, stack: Stack, written: MlflowWriter, change: Callable[[Deployment], None]
) -> None:
    before = _looks(up)
    change(up)
    began = time.monotonic()
    make_up(up, stack)
    # Docker takes note that a service answers again some seconds after.
    until(lambda: _looks(up) == before, "the same as before")
    print(f"{change.__name__.strip('_')}: put right after {time.monotonic() - began:.0f} s")
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
