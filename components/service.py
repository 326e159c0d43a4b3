"""One container of a stack. The only place that knows that a service is a container on a Docker engine."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import pulumi
import pulumi_docker as docker
from pulumi import Input, Output, ResourceOptions

from components.site import TYPE, Site

# What an image needs that starts as root, hands its data to its own user and becomes that user.
BECOME_USER = ("CHOWN", "DAC_OVERRIDE", "FOWNER", "SETGID", "SETUID")
SECRETS = "/run/secrets"

# A container that is not yet healthy is asked every other second, so that what waits for it soon goes on; one that is healthy
# rests before each check, as every check costs the engine a process. Docker's own `start_interval` needs Docker 25. What was
# healthy is remembered in shared memory, which is new at each start. HEALTH_REST=0 asks at once.
_CHECK = """\
healthy=/dev/shm/mlops-stack-healthy
[ ! -e $healthy ] || sleep "${HEALTH_REST:-$0}"
"$@" && : > $healthy || { rm -f $healthy; exit 1; }
"""
REST_SECONDS = 15
_STOP_SECONDS = 60
_SLOWEST_START_SECONDS = 900


@dataclass(frozen=True, kw_only=True)
class Health:
    """A command that asks the service for its work. `start_seconds`: how long failures count as starting."""

    command: Sequence[str]
    start_seconds: int = 60
    interval_seconds: float = 1.5
    timeout_seconds: int = 10
    # As many failures in a row as make some twenty seconds.
    retries: int = 12


@dataclass(frozen=True, kw_only=True)
class Attachment:
    """A network, and the names under which others find the service there."""

    network: docker.Network
    aliases: Sequence[str] = ()


@dataclass(frozen=True, kw_only=True)
class ServiceArgs:
    """What differs between containers; everything else is the same for all and stands in `declare`.

    `secrets` become files in /run/secrets, `files` any other files; neither shows in `docker inspect`. `memory` is in MiB.
    `ports` maps the container's to the published one. `after`: resources to wait for; `gates`: outputs of run-once containers
    that must have succeeded. `reason`: why the first start takes long.
    """

    image: str
    networks: Sequence[Attachment]
    memory: int
    entrypoint: Sequence[str] = ()
    command: Sequence[Input[str]] = ()
    environment: Mapping[str, Input[str]] = field(default_factory=dict)
    secrets: Mapping[str, Input[str]] = field(default_factory=dict)
    files: Mapping[str, Input[str]] = field(default_factory=dict)
    volumes: Mapping[str, docker.Volume] = field(default_factory=dict)
    ports: Mapping[int, int] = field(default_factory=dict)
    capabilities: Sequence[str] = ()
    health: Health | None = None
    after: Sequence[pulumi.Resource] = ()
    gates: Sequence[Output[str]] = ()
    reason: str = ""


class Service(pulumi.ComponentResource):
    """A container that keeps running; the deployment goes on once it is healthy."""

    def __init__(self, name: str, site: Site, args: ServiceArgs, opts: ResourceOptions | None = None) -> None:
        super().__init__(f"{TYPE}:Service", name, {}, opts)
        self.container = declare(name, site, args, parent=self)
        self.name = site.full_name(name)
        if args.reason:
            pulumi.log.info(args.reason, self.container, ephemeral=True)
        self.register_outputs({"name": self.name})


def declare(
    name: str, site: Site, args: ServiceArgs, *, parent: pulumi.Resource, run_once: bool = False
) -> docker.Container:
    """The container itself, with the hardening, limits and log rotation that all have."""
    uploads = {**args.files, **{f"{SECRETS}/{key}": value for key, value in args.secrets.items()}}
    labels = site.labels(
        service=name,
        version=site.images.version(args.image),
        after=Output.all(*args.gates).apply(",".join) if args.gates else "",
    )
    return docker.Container(
        name,
        name=site.full_name(name),
        image=site.images.id(args.image),
        entrypoints=list(args.entrypoint) or None,
        command=list(args.command) or None,
        envs=[Output.concat(key, "=", args.environment[key]) for key in sorted(args.environment)],
        uploads=[docker.ContainerUploadArgs(file=path, content=uploads[path]) for path in sorted(uploads)],
        volumes=[
            docker.ContainerVolumeArgs(container_path=path, volume_name=volume.name)
            for path, volume in sorted(args.volumes.items())
        ],
        networks_advanced=[
            docker.ContainerNetworksAdvancedArgs(name=item.network.name, aliases=list(item.aliases))
            for item in args.networks
        ],
        ports=[
            docker.ContainerPortArgs(internal=inside, external=outside, ip=site.bind_address)
            for inside, outside in sorted(args.ports.items())
        ],
        labels=[docker.ContainerLabelArgs(label=label, value=value) for label, value in labels.items()],
        capabilities=docker.ContainerCapabilitiesArgs(
            drops=["ALL"], adds=[f"CAP_{capability}" for capability in sorted(args.capabilities)]
        ),
        security_opts=["no-new-privileges:true"],
        memory=args.memory,
        memory_swap=args.memory,
        log_driver="json-file",
        log_opts={"max-size": "10m", "max-file": "3"},
        destroy_grace_seconds=_STOP_SECONDS,
        stop_timeout=_STOP_SECONDS,
        healthcheck=_healthcheck(args.health),
        restart="no" if run_once else "unless-stopped",
        attach=run_once or None,
        logs=run_once or None,
        must_run=False if run_once else None,
        wait=True if args.health else None,
        wait_timeout=_SLOWEST_START_SECONDS if args.health else None,
        opts=ResourceOptions(
            parent=parent,
            depends_on=list(args.after),
            # Names are fixed, so the old container has to go first. The provider takes a change of these properties
            # without applying it to a running container.
            delete_before_replace=True,
            replace_on_changes=["healthcheck", "tmpfs", "init"],
        ),
    )


def _healthcheck(health: Health | None) -> docker.ContainerHealthcheckArgs | None:
    if health is None:
        return None
    return docker.ContainerHealthcheckArgs(
        tests=["CMD", "sh", "-c", _CHECK, str(REST_SECONDS), *health.command],
        interval=_duration(health.interval_seconds),
        timeout=_duration(REST_SECONDS + health.timeout_seconds),
        retries=health.retries,
        start_period=_duration(health.start_seconds),
    )


def _duration(seconds: float) -> str:
    """As Docker prints it, so that a refresh finds what was declared."""
    minutes, rest = divmod(seconds, 60)
    return f"{minutes:.0f}m{rest:g}s" if minutes else f"{rest:g}s"
