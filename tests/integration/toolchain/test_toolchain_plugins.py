"""The toolchain's Pulumi and plugins, on a real engine: a program of every kind of resource that we use."""

from __future__ import annotations

import json
import os
import secrets
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from airgap import images, toolchain
from tests.conditions import free_port

PROGRAM = """
import os

import pulumi
import pulumi_docker as docker
import pulumi_random as random
from pulumi.dynamic import CreateResult, Resource, ResourceProvider

prefix, image = os.environ["T_PREFIX"], os.environ["T_IMAGE"]


class Provider(ResourceProvider):
    def create(self, props):
        return CreateResult("dynamic", {**props, "seen": props["value"]})


class Dynamic(Resource):
    seen: pulumi.Output[str]

    def __init__(self, name, value, opts=None):
        super().__init__(Provider(), name, {"value": value, "seen": None}, opts)


password = random.RandomPassword("password", length=40, special=False)
key = random.RandomBytes("key", length=32)
random.RandomId("id", byte_length=4)
label = docker.NetworkLabelArgs(label="t", value=prefix)
edge = docker.Network("edge", name=prefix + "edge", labels=[label])
inner = docker.Network("inner", name=prefix + "inner", internal=True, labels=[label])
volume = docker.Volume(
    "volume", name=prefix + "data", labels=[docker.VolumeLabelArgs(label="t", value=prefix)]
)
built = docker.RemoteImage(
    "built",
    name=prefix + "image:1",
    build=docker.RemoteImageBuildArgs(context="context", build_args={"BASE": image}, label={"t": prefix}),
    triggers={"files": "1"},
)
hardened = {
    "image": built.name.apply(lambda _: built.image_id),
    "security_opts": ["no-new-privileges:true"],
    "capabilities": docker.ContainerCapabilitiesArgs(drops=["ALL"], adds=["CAP_CHOWN"]),
    "log_driver": "json-file",
    "log_opts": {"max-size": "1m", "max-file": "2"},
    "memory": 64,
    "memory_swap": 64,
    "labels": [docker.ContainerLabelArgs(label="t", value=prefix)],
}
server = docker.Container(
    "server",
    name=prefix + "server",
    entrypoints=["/bin/sh", "-c"],
    command=["trap 'exit 0' TERM; while :; do sleep 0.2; done"],
    envs=["A=1"],
    init=True,
    restart="unless-stopped",
    wait=True,
    wait_timeout=60,
    destroy_grace_seconds=10,
    healthcheck=docker.ContainerHealthcheckArgs(
        tests=["CMD-SHELL", "test -s /run/secrets/password"],
        interval="1s",
        timeout="5s",
        retries=5,
        start_period="1s",
    ),
    uploads=[
        docker.ContainerUploadArgs(file="/run/secrets/password", content=password.result)
    ],
    tmpfs={"/scratch": "size=1m"},
    ulimits=[docker.ContainerUlimitArgs(name="nofile", soft=1024, hard=2048)],
    volumes=[docker.ContainerVolumeArgs(volume_name=volume.name, container_path="/data")],
    ports=[docker.ContainerPortArgs(internal=80, external=int(os.environ["T_PORT"]), ip="127.0.0.1")],
    networks_advanced=[
        docker.ContainerNetworksAdvancedArgs(name=edge.name, aliases=["server"]),
        docker.ContainerNetworksAdvancedArgs(name=inner.name, aliases=["server", "other"]),
    ],
    opts=pulumi.ResourceOptions(replace_on_changes=["healthcheck", "tmpfs", "init"]),
    **hardened,
)
once = docker.Container(
    "once",
    name=prefix + "once",
    entrypoints=["/bin/sh", "-c"],
    command=["echo one && exit 3"],
    attach=True,
    logs=True,
    must_run=False,
    restart="no",
    networks_advanced=[docker.ContainerNetworksAdvancedArgs(name=inner.name)],
    opts=pulumi.ResourceOptions(depends_on=[server]),
    **hardened,
)
dynamic = Dynamic("dynamic", server.id)
pulumi.export("exitCode", once.exit_code)
pulumi.export("logs", once.container_logs)
pulumi.export("password", password.result)
pulumi.export("bcrypt", password.bcrypt_hash)
pulumi.export("key", key.hex)
pulumi.export("keyBase64", key.base64)
pulumi.export("serverId", server.id)
pulumi.export("seen", dynamic.seen)
pulumi.export("network", docker.get_network_output(name=edge.name).driver)
"""
DOCKERFILE = "ARG BASE\nFROM ${BASE}\nRUN echo built > /built\n"


class Stack:
    """A throw-away stack with a file backend."""

    def __init__(self, folder: Path, free_port: int) -> None:
        self.prefix = f"t-{secrets.token_hex(3)}-"
        self._folder = folder / "program"
        (self._folder / "context").mkdir(parents=True)
        (self._folder / "context/Dockerfile").write_text(DOCKERFILE)
        (self._folder / "__main__.py").write_text(PROGRAM)
        (self._folder / "Pulumi.yaml").write_text("name: toolchain-test\nruntime: python\n")
        (folder / "state").mkdir()
        bin_dir = toolchain.install(folder / "home")
        path = [str(bin_dir), str(Path(sys.executable).parent), os.environ["PATH"]]
        self._environment = {
            **{name: value for name, value in os.environ.items() if not name.startswith("PULUMI_")},
            "PATH": os.pathsep.join(path),
            "PULUMI_HOME": str(folder / "home/pulumi"),
            "PULUMI_BACKEND_URL": (folder / "state").as_uri(),
            "PULUMI_CONFIG_PASSPHRASE": secrets.token_hex(16),
            "PULUMI_SKIP_UPDATE_CHECK": "true",
            "PULUMI_DISABLE_AUTOMATIC_PLUGIN_ACQUISITION": "true",
            "T_PREFIX": self.prefix,
            "T_PORT": str(free_port),
            "T_IMAGE": images.ensure(["python"])["python"],
        }
        self("stack", "init", "test")

    def __call__(self, *arguments: str) -> str:
        """Run a pulumi command; its output."""
        command = ["pulumi", *arguments, "--non-interactive"]
        done = subprocess.run(
            command, cwd=self._folder, env=self._environment, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
        return done.stdout

    def outputs(self) -> dict[str, Any]:
        outputs: dict[str, Any] = json.loads(self("stack", "output", "--json", "--show-secrets"))
        return outputs


def docker(*arguments: str) -> str:
    return subprocess.run(["docker", *arguments], capture_output=True, text=True, check=True).stdout.strip()


def leftovers(prefix: str) -> dict[str, list[str]]:
    """What the engine has under the prefix, images aside."""
    return {
        kind: docker(kind, "ls", *every, "--filter", f"name={prefix}", "--quiet").split()
        for kind, every in (("container", ["--all"]), ("network", []), ("volume", []))
    }


@pytest.fixture
def stack(tmp_path: Path) -> Iterator[Stack]:
    stack = Stack(tmp_path, free_port())
    yield stack
    for kind, ids in leftovers(stack.prefix).items():
        if ids:
            docker(kind, "rm", *(["--force"] if kind != "network" else []), *ids)
    if docker("image", "ls", "--quiet", f"{stack.prefix}image:1"):
        docker("image", "rm", f"{stack.prefix}image:1")


@pytest.mark.skipif(shutil.which("go") is None, reason="the toolchain is built with Go, which is not here")
def test_a_program_settles_and_leaves_nothing(stack: Stack) -> None:
    stack("up", "--yes", "--skip-preview")
    first = stack.outputs()
    assert first["exitCode"] == 3
    assert "one" in first["logs"]  # with the stream headers of Docker's API in between
    assert len(first["password"]) == 40
    assert first["bcrypt"].startswith("$2")
    assert first["seen"] == first["serverId"]
    assert first["network"] == "bridge"
    server = json.loads(docker("inspect", f"{stack.prefix}server"))[0]
    assert server["State"]["Health"]["Status"] == "healthy"  # `wait` waited
    assert server["HostConfig"]["CapDrop"] == ["ALL"]
    assert server["HostConfig"]["Memory"] == 64 * 2**20
    assert "other" in server["NetworkSettings"]["Networks"][f"{stack.prefix}inner"]["Aliases"]
    assert first["password"] not in json.dumps(server)
    assert docker("exec", server["Id"], "stat", "-c", "%U %a", "/run/secrets/password") == "root 644"
    assert docker("exec", server["Id"], "cat", "/built") == "built"

    exported = stack("stack", "export")
    for name in ("password", "bcrypt", "key", "keyBase64"):
        assert first[name] not in exported, name

    stack("up", "--yes", "--skip-preview", "--expect-no-changes")
    assert stack.outputs()["serverId"] == first["serverId"]
    stack("refresh", "--yes", "--skip-preview", "--expect-no-changes")
    stack("preview", "--expect-no-changes")

    stack("destroy", "--yes", "--skip-preview")
    assert not any(leftovers(stack.prefix).values())
