"""ClickHouse on one node, for Langfuse's traces."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import pulumi
import pulumi_docker as docker
from pulumi import Input, Output, ResourceOptions

from components.service import BECOME_USER, SECRETS, Attachment, Health, Service, ServiceArgs
from components.site import TYPE, Site

_ETC = "/etc/clickhouse-server"

# Its logs about itself grow without end: 176 million rows in five idle weeks (langfuse/langfuse#13123). Langfuse reads one of them, query_log.
_SYSTEM_LOGS = (
    "aggregated_zookeeper_log",
    "asynchronous_insert_log",
    "asynchronous_metric_log",
    "background_schedule_pool_log",
    "backup_log",
    "blob_storage_log",
    "crash_log",
    "delta_lake_metadata_log",
    "error_log",
    "iceberg_metadata_log",
    "instrumentation_trace_log",
    "latency_log",
    "metric_log",
    "opentelemetry_span_log",
    "part_log",
    "processors_profile_log",
    "query_metric_log",
    "query_thread_log",
    "query_views_log",
    "s3queue_log",
    "session_log",
    "text_log",
    "trace_log",
    "zookeeper_connection_log",
    "zookeeper_log",
)


@dataclass(frozen=True, kw_only=True)
class ClickhouseArgs:
    """`memory` is the container's limit in MiB; the server takes four fifths of it at most."""

    user: str
    password: Input[str]
    volume: docker.Volume
    network: docker.Network
    memory: int


class Clickhouse(pulumi.ComponentResource):
    """A ClickHouse on the given volume, found in its network by its name. `server_memory`: bytes that its server may take."""

    def __init__(
        self, name: str, site: Site, args: ClickhouseArgs, opts: ResourceOptions | None = None
    ) -> None:
        super().__init__(f"{TYPE}:Clickhouse", name, {}, opts)
        self.http_url = f"http://{name}:8123"
        self.native_url = f"clickhouse://{name}:9000"
        self.server_memory = args.memory * 1024 * 1024 * 4 // 5
        query = (
            f'CLICKHOUSE_USER={args.user} CLICKHOUSE_PASSWORD="$(cat {SECRETS}/clickhouse-password)" '
            'clickhouse-client --query "SELECT count() FROM system.databases"'
        )
        self.service = Service(
            name,
            site,
            ServiceArgs(
                image="clickhouse",
                networks=[Attachment(network=args.network, aliases=[name])],
                memory=args.memory,
                environment={"CLICKHOUSE_SKIP_USER_SETUP": "1"},
                secrets={"clickhouse-password": args.password},
                files={
                    f"{_ETC}/config.d/mlops-stack.xml": _config(self.server_memory),
                    f"{_ETC}/users.d/mlops-stack.xml": _users(args),
                },
                volumes={"/var/lib/clickhouse": args.volume},
                capabilities=BECOME_USER,
                health=Health(command=["sh", "-c", query]),
            ),
            ResourceOptions(parent=self),
        )
        self.register_outputs({})


def _config(server_memory: int) -> str:
    off = "\n".join(f'    <{log} remove="remove"/>' for log in _SYSTEM_LOGS)
    return f"""\
<clickhouse>
    <timezone>UTC</timezone>
    <!-- To the engine, which rotates it; its own files would grow to twenty gigabytes within the container. -->
    <logger>
        <level>warning</level>
        <console>1</console>
        <log remove="remove"/>
        <errorlog remove="remove"/>
    </logger>
    <max_server_memory_usage>{server_memory}</max_server_memory_usage>
    <mark_cache_size>268435456</mark_cache_size>
    <query_log><ttl>event_date + INTERVAL 7 DAY DELETE</ttl></query_log>
{off}
</clickhouse>
"""


def _users(args: ClickhouseArgs) -> Output[str]:
    def render(password: str) -> str:
        digest = hashlib.sha256(password.encode()).hexdigest()
        return f"""\
<clickhouse>
    <users>
        <default remove="remove"/>
        <{args.user}>
            <password_sha256_hex>{digest}</password_sha256_hex>
            <networks><ip>::/0</ip></networks>
            <profile>default</profile>
            <quota>default</quota>
        </{args.user}>
    </users>
</clickhouse>
"""

    return Output.secret(Output.from_input(args.password).apply(render))
