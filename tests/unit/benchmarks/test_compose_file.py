"""What the comparison with docker compose is made of, and how its times are read."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from benchmarks.__main__ import put
from benchmarks.compose import dependencies, generate
from benchmarks.deploy import Timeline, equal_to, longest_chain

_URN = "urn:pulumi:dev::mlops-stack::mlops-stack:components:Service$docker:index/container:Container::"


def _secret(value: Any) -> dict[str, str]:
    return {"4dabf18193072939515e22adb298388d": "signature", "plaintext": json.dumps(value)}


def _container(name: str, *after: str, **inputs: Any) -> dict[str, Any]:
    return {
        "urn": f"{_URN}{name}",
        "type": "docker:index/container:Container",
        "dependencies": [f"{_URN}{other}" for other in after] + ["urn:pulumi:dev::mlops-stack::other::x"],
        "inputs": {
            "__defaults": [],
            "name": f"t-{name}",
            "image": "sha256:1",
            "memory": 512,
            "memorySwap": 512,
            "stopTimeout": 60,
            "restart": "unless-stopped",
            "logDriver": "json-file",
            "logOpts": {"max-size": "10m"},
            "securityOpts": ["no-new-privileges:true"],
            "capabilities": {"drops": ["ALL"], "adds": ["CAP_CHOWN"]},
            "networksAdvanced": [{"name": "t-net", "aliases": [name]}],
            **inputs,
        },
    }


@pytest.fixture
def resources() -> list[dict[str, Any]]:
    health = {
        "tests": ["CMD", "sh", "-c", 'test "$(cat x)"'],
        "interval": "5s",
        "timeout": "10s",
        "retries": 6,
        "startPeriod": "1m0s",
    }
    return [
        _container(
            "store",
            uploads=_secret([{"file": "/run/secrets/password", "content": "a-password"}]),
            volumes=[{"containerPath": "/data", "volumeName": "t-data"}],
            healthcheck=health,
        ),
        _container("once", "store", restart="no", entrypoints=["/bin/sh", "-c", 'exec "$@"']),
        _container(
            "server",
            "store",
            "once",
            envs=["A=1"],
            ports=[{"internal": 80, "external": 8080, "ip": "127.0.0.1"}],
        ),
        {
            "urn": "urn:pulumi:dev::mlops-stack::docker:index/network:Network::network",
            "type": "docker:index/network:Network",
            "inputs": {"name": "t-net", "internal": True, "driver": "bridge"},
        },
        {
            "urn": "urn:pulumi:dev::mlops-stack::docker:index/volume:Volume::volume",
            "type": "docker:index/volume:Volume",
            "inputs": {"name": "t-data"},
        },
    ]


def test_services_wait_for_what_the_stack_waits_for(resources: list[dict[str, Any]], tmp_path: Path) -> None:
    services = generate(resources, {"sha256:1": "image:1"}, tmp_path)["services"]
    assert services["server"]["depends_on"] == {
        "store": {"condition": "service_healthy"},
        "once": {"condition": "service_completed_successfully"},
    }
    assert services["store"]["depends_on"] == {}
    assert dependencies(resources) == {"store": set(), "once": {"store"}, "server": {"store", "once"}}


def test_a_service_is_what_the_container_is(resources: list[dict[str, Any]], tmp_path: Path) -> None:
    content = generate(resources, {"sha256:1": "image:1"}, tmp_path)
    store, server = content["services"]["store"], content["services"]["server"]
    assert (store["container_name"], store["image"], store["mem_limit"]) == ("t-store", "image:1", "512m")
    assert store["cap_drop"] == ["ALL"]
    assert store["cap_add"] == ["CAP_CHOWN"]
    # A single $ would be a variable of compose's.
    assert store["healthcheck"]["test"][-1] == 'test "$$(cat x)"'
    assert store["healthcheck"]["start_period"] == "1m0s"
    assert server["ports"] == ["127.0.0.1:8080:80"]
    assert server["environment"] == ["A=1"]
    assert content["networks"]["t-net"]["internal"] is True
    assert content["volumes"] == {"t-data": {"name": "t-data"}}


def test_uploads_are_mounted_files_and_never_in_the_compose_file(
    resources: list[dict[str, Any]], tmp_path: Path
) -> None:
    content = generate(resources, {"sha256:1": "image:1"}, tmp_path)
    volume, mounted = content["services"]["store"]["volumes"]
    assert volume == {"type": "volume", "source": "t-data", "target": "/data"}
    assert (mounted["target"], mounted["read_only"]) == ("/run/secrets/password", True)
    file = Path(mounted["source"])
    assert file.read_text() == "a-password"
    assert file.stat().st_mode & 0o777 == 0o444
    assert "a-password" not in json.dumps(content["services"])


def test_time_is_split_into_what_is_waited_for_and_the_rest() -> None:
    timeline = Timeline(20.0, started={"a": 3, "b": 4, "c": 11}, ready={"a": 8, "b": 9, "c": 16})
    assert timeline.before() == 3
    assert timeline.waiting() == 6 + 5
    assert timeline.between() == 2
    assert timeline.after() == 4


def test_the_longest_chain_is_the_floor() -> None:
    needs: dict[str, set[str]] = {"a": set(), "b": set(), "c": {"a", "b"}, "d": {"a"}}
    assert longest_chain({"a": 5, "b": 7, "c": 2, "d": 3}, needs) == (9, ["b", "c"])


def test_a_difference_between_both_is_named() -> None:
    def found(memory: int) -> dict[str, Any]:
        return {"Image": "sha256:1", "Config": {"Env": ["B=1", "A=1"]}, "HostConfig": {"Memory": memory}}

    assert equal_to({"store": found(1)}, {"store": found(1)}) == []
    assert equal_to({"store": found(1)}, {"store": found(2)}) == ["store: Memory"]


def test_a_measured_part_takes_the_place_of_the_one_before() -> None:
    document = put(put("# Title\n", "deploy", "old"), "memory", "kept")
    again = put(document, "deploy", "new \\1")
    assert "new \\1" in again
    assert "old" not in again
    assert "kept" in again
    assert again.startswith("# Title\n")
