"""Redis as a queue: nothing is evicted, and what was taken is on the disk a second later."""

from __future__ import annotations

from dataclasses import dataclass

import pulumi
import pulumi_docker as docker
from pulumi import Input, Output, ResourceOptions

from components.service import BECOME_USER, SECRETS, Attachment, Health, Service, ServiceArgs
from components.site import TYPE, Site

_CONFIG = f"{SECRETS}/redis.conf"
_PING = f'REDISCLI_AUTH="$(cat {SECRETS}/redis-password)" redis-cli ping | grep -q PONG'


@dataclass(frozen=True, kw_only=True)
class RedisArgs:
    """`memory` is the container's limit in MiB; three quarters of it are for data."""

    password: Input[str]
    volume: docker.Volume
    network: docker.Network
    memory: int


class Redis(pulumi.ComponentResource):
    """A Redis on the given volume, found in its network by its name."""

    def __init__(self, name: str, site: Site, args: RedisArgs, opts: ResourceOptions | None = None) -> None:
        super().__init__(f"{TYPE}:Redis", name, {}, opts)
        self.host = name
        self.service = Service(
            name,
            site,
            ServiceArgs(
                image="redis",
                networks=[Attachment(network=args.network, aliases=[name])],
                memory=args.memory,
                command=["redis-server", _CONFIG],
                # The configuration holds the password, so it is a secret as a whole.
                secrets={"redis.conf": _config(args), "redis-password": args.password},
                volumes={"/data": args.volume},
                capabilities=BECOME_USER,
                health=Health(command=["sh", "-c", _PING]),
            ),
            ResourceOptions(parent=self),
        )
        self.register_outputs({})


def _config(args: RedisArgs) -> Output[str]:
    plain = f"""\
dir /data
appendonly yes
appendfsync everysec
# BullMQ, Langfuse's queue, loses jobs under any other policy.
maxmemory-policy noeviction
maxmemory {args.memory * 3 // 4}mb
"""
    return Output.secret(Output.concat(plain, "requirepass ", args.password, "\n"))
