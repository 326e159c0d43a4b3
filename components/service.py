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

# The first check lasts until the service answers, so that what waits for it soon goes on. Later ones rest before they ask once,
# as each costs the engine a process; after a refusal they no longer rest. How long to rest is kept in shared memory, which is new
# at each start. Docker's own `start_interval` needs Docker 25, where a `start_period` without it means five seconds.
# HEALTH_NOW=1 asks once, at once.
REST_SECONDS = 15
_ANSWER_SECONDS = 10
_CHECK = f"""\
ask() {{ timeout {_ANSWER_SECONDS} "$@"; }}
rest=/dev/shm/mlops-stack-rest
if [ -n "${{HEALTH_NOW:-}}" ]; then
    ask "$@"
elif [ -e $rest ]; then
    sleep "$(cat $rest)"
    if ask "$@"; then echo {REST_SECONDS} > $rest; else echo 0 > $rest; exit 1; fi
else
    end=$(( $(date +%s) + $0 ))
    until ask "$@" > /dev/null 2>&1; do
        [ "$(date +%s)" -lt "$end" ] || {{ echo 0 > $rest; exit 1; }}
        sleep 0.3 2>/dev/null || sleep 1
    done
    echo {REST_SECONDS} > $rest
fi
"""
_STOP_SECONDS = 60
_SLOWEST_START_SECONDS = 900


@dataclass(frozen=True, kw_only=True)
class Health:
    """A command that asks the service for its work. `start_seconds`: about how long it may take until the first answer."""

    command: Sequence[str]
    start_seconds: int = 60


@dataclass(frozen=True, kw_only=True)
class Attachment:
    """A network, and the names under which others find the service there."""

    network: docker.Network
    aliases: Sequence[str] = ()


@dataclass(frozen=True, kw_only=True)
class ServiceArgs:
    """What differs between containers; everything else is the same for all and stands in `declare`.

    `secrets` become files in /run/secrets, `files` any other files; neither shows in `docker inspect`. `memory` is in MiB, and
    so is `shared_memory`, of /dev/shm. `ports` maps the container's to the published one. `after`: resources to wait for;
    `gates`: outputs of run-once containers that must have succeeded. `reason`: why the first start takes long. `labels`: of its
    own, beside those that tell what it is.
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
    shared_memory: int | None = None
    health: Health | None = None
    after: Sequence[pulumi.Resource] = ()
    gates: Sequence[Output[str]] = ()
    reason: str = ""
    labels: Mapping[str, Input[str]] = field(default_factory=dict)


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
        **args.labels,
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
        shm_size=args.shared_memory,
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
        tests=["CMD", "sh", "-c", _CHECK, str(health.start_seconds), *health.command],
        # Off the full second: at those the provider looks, and an answer a moment later would wait for the next one.
        interval="500ms",
        timeout=_duration(health.start_seconds + _ANSWER_SECONDS + 5),
        # As many in a row as make about fifteen seconds, where the service refuses at once.
        retries=24,
    )


def _duration(seconds: int) -> str:
    """As Docker prints it, so that a refresh finds what was declared."""
    minutes, rest = divmod(seconds, 60)
    return f"{minutes}m{rest}s" if minutes else f"{rest}s"
