"""An S3 by MinIO, and the run-once container that makes its buckets."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import pulumi
import pulumi_docker as docker
from pulumi import Input, Output, ResourceOptions

from components.one_shot import OneShot
from components.service import SECRETS, Attachment, Health, Service, ServiceArgs
from components.site import TYPE, Site

_BUCKETS_MEMORY = 128


@dataclass(frozen=True, kw_only=True)
class S3:
    """Where objects are kept and how to get in, wherever that runs. `gates`: what makes its buckets."""

    endpoint: str
    access_key_id: Input[str]
    secret_access_key: Input[str]
    gates: Sequence[Output[str]] = ()

    @classmethod
    def managed(cls, endpoint: str, access_key_id: str, secret_access_key: str) -> S3:
        """An S3 that exists, with its buckets."""
        return cls(
            endpoint=endpoint,
            access_key_id=Output.secret(access_key_id),
            secret_access_key=Output.secret(secret_access_key),
        )


def endpoint_of(name: str) -> str:
    """Where others on its network reach a MinIO of the stack."""
    return f"http://{name}:9000"


@dataclass(frozen=True, kw_only=True)
class MinioArgs:
    """`bucket_maker`: the name of the run-once container. `api_port`, `console_port`: published ones, if any."""

    root_user: Input[str]
    root_password: Input[str]
    buckets: Sequence[str]
    bucket_maker: str
    volume: docker.Volume
    network: docker.Network
    api_port: int | None = None
    console_port: int | None = None


class Minio(pulumi.ComponentResource):
    """A MinIO on the given volume with its buckets. Gate what needs them by `s3.gates`."""

    def __init__(self, name: str, site: Site, args: MinioArgs, opts: ResourceOptions | None = None) -> None:
        super().__init__(f"{TYPE}:Minio", name, {}, opts)
        endpoint = endpoint_of(name)
        ports = {9000: args.api_port, 9001: args.console_port}
        published = {inside: outside for inside, outside in ports.items() if outside}
        secrets = {"minio-root-user": args.root_user, "minio-root-password": args.root_password}
        own = Attachment(network=args.network, aliases=[name])
        self.service = Service(
            name,
            site,
            ServiceArgs(
                image="minio",
                networks=[own, *([Attachment(network=site.edge)] if published else [])],
                memory=site.minio_memory,
                command=["server", "/data", "--console-address", ":9001"],
                environment={
                    "MINIO_ROOT_USER_FILE": f"{SECRETS}/minio-root-user",
                    "MINIO_ROOT_PASSWORD_FILE": f"{SECRETS}/minio-root-password",
                    "MINIO_UPDATE": "off",
                },
                secrets=secrets,
                volumes={"/data": args.volume},
                ports=published,
                health=Health(command=["curl", "-fsS", "http://127.0.0.1:9000/minio/health/cluster"]),
            ),
            ResourceOptions(parent=self),
        )
        self.buckets = OneShot(
            args.bucket_maker,
            site,
            ServiceArgs(
                image="mc",
                networks=[Attachment(network=args.network)],
                memory=_BUCKETS_MEMORY,
                entrypoint=["/bin/sh", "-euc", _script(endpoint), args.bucket_maker],
                command=list(args.buckets),
                environment={"MC_CONFIG_DIR": "/tmp/mc"},
                secrets=secrets,
                after=[self.service.container],
            ),
            ResourceOptions(parent=self),
        )
        # The root user's own keys: MinIO serves this product alone.
        self.s3 = S3(
            endpoint=endpoint,
            access_key_id=args.root_user,
            secret_access_key=args.root_password,
            gates=[self.buckets.done],
        )
        self.register_outputs({})


def _script(endpoint: str) -> str:
    """Makes the buckets named as arguments, unless they are there."""
    host = endpoint.removeprefix("http://")
    return f"""\
export MC_HOST_stack="http://$(cat {SECRETS}/minio-root-user):$(cat {SECRETS}/minio-root-password)@{host}"
for bucket in "$@"; do
    mc mb --ignore-existing "stack/$bucket"
done
"""
