"""What killed runs left: recognised, removed or refused, and nothing else touched."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import pytest

from scripts.bootstrap import leftovers, power
from scripts.bootstrap.stack import Stack
from scripts.machine.problems import Problem
from tests.unit.bootstrap.conftest import IDENTITY, OTHERS, OURS, Program, container


@pytest.fixture
def state_has(pulumi: Program) -> Callable[..., None]:
    def has(
        *names: str,
        identity: bool = True,
        pending: bool = False,
        volumes: Sequence[str] = (),
        deleting: Sequence[str] = (),
        needs: Mapping[str, str] | None = None,
    ) -> None:
        resources: list[Any] = [
            {"type": "docker:index/container:Container", "id": f"id-of-{name}", "urn": f"urn-of-{name}"}
            for name in names
        ]
        resources += [
            {"type": "docker:index/volume:Volume", "id": name, "urn": f"urn-of-{name}"} for name in volumes
        ]
        for item in resources:
            if store := (needs or {}).get(item["id"].removeprefix("id-of-")):
                item["dependencies"] = [f"urn-of-{store}"]
        deployment: dict[str, Any] = {"resources": [*([IDENTITY] if identity else []), *resources]}
        if pending:
            deployment["pending_operations"] = [{"type": "creating"}]
        if deleting:
            deployment["pending_operations"] = [
                {"type": "deleting", "resource": {"urn": f"urn-of-{name}"}} for name in deleting
            ]
        pulumi.answers("stack export", {"version": 3, "deployment": deployment})

    return has


def removed(docker: Program) -> list[str]:
    return [call for call in docker.calls if " rm " in f" {call} "]


def test_only_unknown_containers_and_failed_run_once_ones_go(
    stack: Stack,
    docker: Program,
    engine_has: Callable[..., None],
    state_has: Callable[..., None],
    said: list[str],
) -> None:
    state_has("mlflow-server", "mlflow-postgres", "mlflow-create-bucket", "langfuse-init-minio")
    engine_has(
        container("mlflow-server"),
        container("mlflow-postgres", Status="exited", ExitCode=137),
        container("mlflow-create-bucket", run_once=True, Status="exited", ExitCode=1),
        container("langfuse-init-minio", run_once=True, Status="exited"),
        container("langfuse-web"),
    )
    leftovers.clear(stack, said.append)
    assert removed(docker) == ["rm --force id-of-mlflow-create-bucket", "rm --force id-of-langfuse-web"]
    assert [line.split()[2].rstrip(",") for line in said] == ["mlflow-create-bucket", "langfuse-web"]


def test_what_the_state_does_not_know_is_stopped_before_it_goes(
    stack: Stack,
    docker: Program,
    engine_has: Callable[..., None],
    state_has: Callable[..., None],
    said: list[str],
) -> None:
    state_has()
    engine_has(container("mlflow-postgres"), container("mlflow-minio", Status="created"))
    leftovers.clear(stack, said.append)
    assert [call for call in docker.calls if call.startswith(("stop", "rm"))] == [
        "stop --time 20 id-of-mlflow-postgres",
        "rm --force id-of-mlflow-postgres",
        "rm --force id-of-mlflow-minio",
    ]


@pytest.mark.parametrize("there", [True, False])
def test_buckets_are_made_again_where_their_store_is(
    stack: Stack,
    docker: Program,
    engine_has: Callable[..., None],
    state_has: Callable[..., None],
    said: list[str],
    there: bool,
) -> None:
    state_has("mlflow-minio", "mlflow-create-bucket", needs={"mlflow-create-bucket": "mlflow-minio"})
    bucket = container("mlflow-create-bucket", run_once=True, Status="exited")
    engine_has(*([container("mlflow-minio")] if there else []), bucket)
    leftovers.clear(stack, said.append)
    assert removed(docker) == ([] if there else ["rm --force id-of-mlflow-create-bucket"])


def test_data_that_is_gone_is_a_reason_to_stop(
    stack: Stack,
    docker: Program,
    pulumi: Program,
    engine_has: Callable[..., None],
    state_has: Callable[..., None],
    said: list[str],
) -> None:
    state_has(volumes=["a-data", "b-data"])
    engine_has()
    docker.answers("volume ls --format {{.Name}}", "a-data\n")
    with pytest.raises(Problem, match="gone from this engine: b-data") as refused:
        leftovers.clear(stack, said.append)
    assert "docker volume create b-data" in refused.value.fix
    assert not [call for call in pulumi.calls if "state delete" in call]


@pytest.mark.parametrize(("deleting", "removing"), [(["b-data"], False), ([], True)])
def test_what_an_interrupted_destroy_removed_is_forgotten(
    stack: Stack,
    docker: Program,
    pulumi: Program,
    engine_has: Callable[..., None],
    state_has: Callable[..., None],
    said: list[str],
    deleting: list[str],
    removing: bool,
) -> None:
    state_has(volumes=["a-data", "b-data"], deleting=deleting)
    engine_has()
    docker.answers("volume ls --format {{.Name}}", "a-data\n")
    leftovers.clear(stack, said.append, removing=removing)
    deleted = [call for call in pulumi.calls if "state delete" in call]
    assert [call.split()[2] for call in deleted] == ["urn-of-b-data"]


@pytest.mark.parametrize(("identity", "says"), [(False, "was lost"), (True, "another state")])
def test_what_another_state_made_is_refused_and_left_alone(
    stack: Stack,
    docker: Program,
    engine_has: Callable[..., None],
    state_has: Callable[..., None],
    said: list[str],
    identity: bool,
    says: str,
) -> None:
    state_has(identity=identity)
    engine_has(container("mlflow-server", identity=OTHERS))
    docker.answers("volume ls", f"mlflow-postgres-data {OTHERS}\n")
    with pytest.raises(Problem, match=says) as refused:
        leftovers.clear(stack, said.append)
    assert "mlflow-postgres-data, mlflow-server" in refused.value.message
    assert "docker volume ls -q --filter label=mlops-stack.stack=mlops-stack/dev" in refused.value.fix
    assert removed(docker) == []


@pytest.mark.parametrize("identity", [OURS, OTHERS], ids=["kept", "taken over"])
def test_volumes_that_the_state_knows_are_nobody_elses(
    stack: Stack,
    docker: Program,
    engine_has: Callable[..., None],
    state_has: Callable[..., None],
    said: list[str],
    identity: str,
) -> None:
    state_has(volumes=["mlflow-postgres-data"])
    engine_has()
    docker.answers("volume ls --filter", f"mlflow-postgres-data {identity}\n")
    docker.answers("volume ls --format {{.Name}}", "mlflow-postgres-data\n")
    leftovers.clear(stack, said.append)
    assert said == []
    assert removed(docker) == []


def test_a_half_made_network_goes(
    stack: Stack,
    docker: Program,
    engine_has: Callable[..., None],
    state_has: Callable[..., None],
    said: list[str],
) -> None:
    state_has("known")
    engine_has()
    docker.answers("network ls --quiet", "id-of-known\nid-of-unknown\n")
    leftovers.clear(stack, said.append)
    assert removed(docker) == ["network rm id-of-unknown"]


def test_pending_operations_are_refreshed_away(
    stack: Stack,
    pulumi: Program,
    engine_has: Callable[..., None],
    state_has: Callable[..., None],
    said: list[str],
) -> None:
    engine_has()
    state_has(pending=False)
    leftovers.clear(stack, said.append)
    assert not any(call.startswith("refresh") for call in pulumi.calls)
    state_has(pending=True)
    leftovers.clear(stack, said.append)
    assert any("--clear-pending-creates" in call for call in pulumi.calls)


def test_stores_start_first_and_stop_last_and_run_once_ones_never(
    stack: Stack, docker: Program, engine_has: Callable[..., None], said: list[str]
) -> None:
    once = container("mlflow-create-bucket", run_once=True, Status="exited")
    engine_has(container("mlflow-server"), container("mlflow-postgres"), once)
    power.stop(stack, said.append)
    stopped = [call.split()[-1] for call in docker.calls if call.startswith("stop")]
    assert stopped == ["id-of-mlflow-server", "id-of-mlflow-postgres"]

    created = {"Status": "created"}
    engine_has(container("mlflow-server", **created), container("mlflow-postgres", **created), once)
    docker.answers("start", code=1, err="no space left")
    with pytest.raises(Problem, match="no space left"):
        power.start(stack, said.append)
    assert [call for call in docker.calls if call.startswith("start")] == ["start id-of-mlflow-postgres"]


def test_what_was_paused_goes_on(
    stack: Stack,
    docker: Program,
    engine_has: Callable[..., None],
    state_has: Callable[..., None],
    said: list[str],
) -> None:
    state_has("mlflow-server")
    engine_has(container("mlflow-server", Status="paused"))
    leftovers.clear(stack, said.append)
    docker.answers("unpause", code=1, err="no such process")
    with pytest.raises(Problem, match="no such process"):
        power.start(stack, said.append)
    assert [call for call in docker.calls if "pause" in call] == ["unpause id-of-mlflow-server"] * 2


def test_a_store_that_ends_again_is_named(
    stack: Stack, engine_has: Callable[..., None], said: list[str]
) -> None:
    engine_has(container("mlflow-postgres", Status="exited", ExitCode=1))
    with pytest.raises(Problem, match="mlflow-postgres ended again"):
        power.start(stack, said.append)
