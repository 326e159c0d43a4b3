"""Langfuse v3, and its stores."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import pulumi
import pulumi_docker as docker
from pulumi import Input, Output, ResourceOptions

from components.clickhouse import Clickhouse, ClickhouseArgs
from components.minio import S3, Minio, MinioArgs
from components.postgres import Postgres, PostgresArgs
from components.redis import Redis, RedisArgs
from components.secrets import Secrets, fingerprint
from components.service import SECRETS, Attachment, Health, Service, ServiceArgs
from components.settings import LangfuseSettings
from components.site import TYPE, Site

_VARIABLES = "environment"
# Langfuse reads no secret from a file, so a shell puts them into the environment of the process alone, which
# `docker inspect` does not show, and becomes the image's own entrypoint. All are in one file: the provider uploads each file
# by itself, and a dozen of them delayed the start of each half by more than a second.
_START = f'set -a; . {SECRETS}/{_VARIABLES}; set +a; exec "$@"'
_WEB = "dumb-init -- ./web/entrypoint.sh node ./web/server.js --keepAliveTimeout 110000"
_WORKER = "dumb-init -- ./worker/entrypoint.sh node worker/dist/index.js"
_WEB_PORT = 3000
_WORKER_PORT = 3030
_FAMILIES = {
    "EVENT_UPLOAD": ("events_bucket", "events_prefix"),
    "MEDIA_UPLOAD": ("media_bucket", "media_prefix"),
    "BATCH_EXPORT": ("exports_bucket", "exports_prefix"),
}


@dataclass(frozen=True, kw_only=True)
class LangfuseArgs:
    """The settings of the product."""

    settings: LangfuseSettings


@dataclass(frozen=True, kw_only=True)
class _Environment:
    """Variables of a container: plain ones and secret ones."""

    plain: Mapping[str, Input[str]] = field(default_factory=dict)
    secret: Mapping[str, Input[str]] = field(default_factory=dict)

    def __or__(self, other: _Environment) -> _Environment:
        return _Environment(plain={**self.plain, **other.plain}, secret={**self.secret, **other.secret})


class LangfuseSecrets:
    """Every secret of the product, generated or given."""

    def __init__(self, secrets: Secrets, settings: LangfuseSettings) -> None:
        self.user_password = secrets.password("langfuse-user-password", settings.user_password, length=24)
        self.public_key = Output.unsecret(secrets.api_key("langfuse-public-key", "pk", settings.public_key))
        self.secret_key = secrets.api_key("langfuse-secret-key", "sk", settings.secret_key)
        self.nextauth_secret = secrets.base64("langfuse-nextauth-secret", settings.nextauth_secret)
        self.salt = secrets.base64("langfuse-salt", settings.salt)
        self.encryption_key = secrets.hex("langfuse-encryption-key", settings.encryption_key)
        self.postgres_password = secrets.password("langfuse-postgres-password", settings.postgres_password)
        self.clickhouse_password = secrets.password(
            "langfuse-clickhouse-password", settings.clickhouse_password
        )
        self.redis_password = secrets.password("langfuse-redis-password", settings.redis_password)
        self.minio_root_user = secrets.password(
            "langfuse-minio-root-user", settings.minio_root_user, length=20
        )
        self.minio_root_password = secrets.password(
            "langfuse-minio-root-password", settings.minio_root_password
        )


class LangfuseStack(pulumi.ComponentResource):
    """`langfuse-web`, `langfuse-worker` and the four stores with `langfuse-init-minio`.

    A store that the settings give the address of is not created. Switched off, only secrets and volumes are declared.
    """

    def __init__(
        self, name: str, site: Site, args: LangfuseArgs, opts: ResourceOptions | None = None
    ) -> None:
        super().__init__(f"{TYPE}:LangfuseStack", name, {}, opts)
        self.settings = settings = args.settings
        # First: secrets and volumes are made while the provider waits for the network.
        network = site.network("langfuse", self, internal=True) if settings.enabled else None
        secrets = site.secrets(self)
        self.secrets = LangfuseSecrets(secrets, settings)
        self.volumes = site.volumes(settings.stores, self, secrets)
        self.containers: dict[str, docker.Container] = {}
        self.url = settings.public_url or f"http://{site.host}:{settings.port}"
        if network:
            self._run(site, network)
        self.register_outputs({"url": self.url})

    def _run(self, site: Site, network: docker.Network) -> None:
        s3 = self._object_store(site, network)
        both = (
            self._application()
            | self._postgres(site, network)
            | self._clickhouse(site, network)
            | self._redis(site, network)
            | self._s3(site, s3)
        )
        web = self._half(
            site,
            "langfuse-web",
            network,
            both | self._web_only(site),
            _WEB,
            memory=self.settings.web_memory,
            # Without the question it says that it is well although its database is gone.
            health=f"http://127.0.0.1:{_WEB_PORT}/api/public/health?failIfDatabaseUnavailable=true",
            after=list(self.containers.values()),
            gates=s3.gates,
            ports={_WEB_PORT: self.settings.port},
            labels=self._keys(),
            reason="Langfuse migrates Postgres and ClickHouse at its first start: up to three minutes",
        )
        self._half(
            site,
            "langfuse-worker",
            network,
            both,
            _WORKER,
            memory=self.settings.worker_memory,
            health=f"http://127.0.0.1:{_WORKER_PORT}/api/health",
            # The web server alone migrates the databases.
            after=[web],
        )

    def _application(self) -> _Environment:
        return _Environment(
            plain={
                "HOSTNAME": "0.0.0.0",
                "NEXTAUTH_URL": self.url,
                "TELEMETRY_ENABLED": str(self.settings.telemetry).lower(),
            },
            secret={"SALT": self.secrets.salt, "ENCRYPTION_KEY": self.secrets.encryption_key},
        )

    def _web_only(self, site: Site) -> _Environment:
        settings, secrets = self.settings, self.secrets
        return _Environment(
            plain={
                "AUTH_DISABLE_SIGNUP": str(not settings.allow_signup).lower(),
                "LANGFUSE_S3_MEDIA_UPLOAD_ENDPOINT": self._public_s3(site),
                "LANGFUSE_INIT_ORG_ID": settings.organization_id,
                "LANGFUSE_INIT_ORG_NAME": settings.organization_name,
                "LANGFUSE_INIT_PROJECT_ID": settings.project_id,
                "LANGFUSE_INIT_PROJECT_NAME": settings.project_name,
                "LANGFUSE_INIT_PROJECT_PUBLIC_KEY": secrets.public_key,
                "LANGFUSE_INIT_USER_EMAIL": settings.user_email,
                "LANGFUSE_INIT_USER_NAME": settings.user_name,
            },
            secret={
                "NEXTAUTH_SECRET": secrets.nextauth_secret,
                "LANGFUSE_INIT_PROJECT_SECRET_KEY": secrets.secret_key,
                "LANGFUSE_INIT_USER_PASSWORD": secrets.user_password,
            },
        )

    def _keys(self) -> Mapping[str, Output[str]]:
        """What shows the next `up` that a key was changed without which stored data is of no use."""
        settings, secrets = self.settings, self.secrets
        return {
            "salt": _recognisable(secrets.salt, given=bool(settings.salt)),
            "encryption-key": _recognisable(secrets.encryption_key, given=bool(settings.encryption_key)),
        }

    def _postgres(self, site: Site, network: docker.Network) -> _Environment:
        settings = self.settings
        if settings.database_url:
            return _Environment(secret={"DATABASE_URL": Output.secret(settings.database_url)})
        store = Postgres(
            "langfuse-postgres",
            site,
            PostgresArgs(
                database="langfuse",
                password=self.secrets.postgres_password,
                volume=self.volumes["langfuse-postgres"],
                network=network,
                published=settings.postgres_port if site.publish_data_stores else None,
            ),
            ResourceOptions(parent=self),
        )
        self.containers["langfuse-postgres"] = store.service.container
        return _Environment(secret={"DATABASE_URL": store.url("postgresql")})

    def _clickhouse(self, site: Site, network: docker.Network) -> _Environment:
        settings, password = self.settings, self.secrets.clickhouse_password
        http_url, native_url = settings.clickhouse_url, settings.clickhouse_migration_url
        spill: dict[str, Input[str]] = {}
        if not http_url:
            store = Clickhouse(
                "langfuse-clickhouse",
                site,
                ClickhouseArgs(
                    user=settings.clickhouse_user,
                    password=password,
                    volume=self.volumes["langfuse-clickhouse"],
                    network=network,
                    memory=settings.clickhouse_memory,
                ),
                ResourceOptions(parent=self),
            )
            self.containers["langfuse-clickhouse"] = store.service.container
            http_url, native_url = store.http_url, store.native_url
            # Large aggregations go on on disk from here; Langfuse's 32 GB are more than the server has.
            spill = {"CLICKHOUSE_MAX_BYTES_BEFORE_EXTERNAL_GROUP_BY": str(store.server_memory // 2)}
        encrypted = {"CLICKHOUSE_MIGRATION_SSL": "true"} if http_url.startswith("https://") else {}
        return _Environment(
            plain={
                "CLICKHOUSE_URL": http_url,
                "CLICKHOUSE_MIGRATION_URL": native_url,
                "CLICKHOUSE_USER": settings.clickhouse_user,
                # Langfuse expects a cluster unless told otherwise.
                "CLICKHOUSE_CLUSTER_ENABLED": "false",
                **encrypted,
                **spill,
            },
            secret={"CLICKHOUSE_PASSWORD": password},
        )

    def _redis(self, site: Site, network: docker.Network) -> _Environment:
        settings, password = self.settings, self.secrets.redis_password
        if settings.redis_url:
            return _Environment(secret={"REDIS_CONNECTION_STRING": Output.secret(settings.redis_url)})
        store = Redis(
            "langfuse-redis",
            site,
            RedisArgs(
                password=password,
                volume=self.volumes["langfuse-redis"],
                network=network,
                memory=settings.redis_memory,
            ),
            ResourceOptions(parent=self),
        )
        self.containers["langfuse-redis"] = store.service.container
        return _Environment(
            plain={"REDIS_HOST": store.host, "REDIS_PORT": "6379"}, secret={"REDIS_AUTH": password}
        )

    def _object_store(self, site: Site, network: docker.Network) -> S3:
        settings = self.settings
        if settings.s3_endpoint:
            return S3.managed(settings.s3_endpoint, settings.s3_access_key_id, settings.s3_secret_access_key)
        buckets = dict.fromkeys(getattr(settings, bucket) for bucket, _ in _FAMILIES.values())
        store = Minio(
            "langfuse-minio",
            site,
            MinioArgs(
                root_user=self.secrets.minio_root_user,
                root_password=self.secrets.minio_root_password,
                buckets=list(buckets),
                bucket_maker="langfuse-init-minio",
                volume=self.volumes["langfuse-minio"],
                network=network,
                api_port=settings.minio_port,
                console_port=settings.minio_console_port if site.publish_data_stores else None,
            ),
            ResourceOptions(parent=self),
        )
        self.containers["langfuse-minio"] = store.service.container
        self.containers["langfuse-init-minio"] = store.buckets.container
        return store.s3

    def _public_s3(self, site: Site) -> str:
        """Where browsers reach the S3, by URLs that Langfuse signs: for media, and to download exports."""
        settings = self.settings
        return settings.media_url or settings.s3_endpoint or f"http://{site.host}:{settings.minio_port}"

    def _s3(self, site: Site, s3: S3) -> _Environment:
        settings = self.settings
        plain: dict[str, Input[str]] = {
            "LANGFUSE_S3_BATCH_EXPORT_ENABLED": "true",
            "LANGFUSE_S3_BATCH_EXPORT_EXTERNAL_ENDPOINT": self._public_s3(site),
        }
        if not settings.s3_endpoint:
            # MinIO makes a file or folder of each part of a key, and file systems take no longer names (langfuse/langfuse#13476).
            plain["LANGFUSE_S3_EVENT_KEY_MAX_SEGMENT_BYTES"] = "255"
        secret: dict[str, Input[str]] = {}
        for family, (bucket, prefix) in _FAMILIES.items():
            name = f"LANGFUSE_S3_{family}"
            plain |= {
                f"{name}_BUCKET": getattr(settings, bucket),
                f"{name}_ENDPOINT": s3.endpoint,
                f"{name}_REGION": settings.s3_region,
                f"{name}_FORCE_PATH_STYLE": "true",
            }
            if getattr(settings, prefix):  # an empty variable counts as unset
                plain[f"{name}_PREFIX"] = getattr(settings, prefix)
            secret |= {
                f"{name}_ACCESS_KEY_ID": s3.access_key_id,
                f"{name}_SECRET_ACCESS_KEY": s3.secret_access_key,
            }
        return _Environment(plain=plain, secret=secret)

    def _half(
        self,
        site: Site,
        name: str,
        network: docker.Network,
        environment: _Environment,
        command: str,
        *,
        memory: int,
        health: str,
        after: Sequence[pulumi.Resource],
        gates: Sequence[Output[str]] = (),
        ports: Mapping[int, int] | None = None,
        labels: Mapping[str, Input[str]] | None = None,
        reason: str = "",
    ) -> docker.Container:
        service = Service(
            name,
            site,
            ServiceArgs(
                image=name,
                networks=[
                    Attachment(network=network, aliases=[name]),
                    # People reach the web server here, and both reach the models that they call.
                    Attachment(network=site.edge, aliases=[name]),
                ],
                memory=memory,
                entrypoint=["/bin/sh", "-euc", _START, name],
                command=command.split(),
                # Node does not know the container's limit; the rest is for what is not on its heap.
                environment={
                    **environment.plain,
                    "NODE_OPTIONS": f"--max-old-space-size={memory * 3 // 4}",
                },
                secrets={_VARIABLES: _assignments(environment.secret)},
                ports=ports or {},
                health=Health(command=["wget", "-q", "-O", "/dev/null", health], start_seconds=300),
                after=after,
                gates=gates,
                labels=labels or {},
                reason=reason,
            ),
            ResourceOptions(parent=self),
        )
        self.containers[name] = service.container
        return service.container


def _recognisable(key: Output[str], *, given: bool) -> Output[str]:
    how = "given" if given else "generated"
    return Output.unsecret(key.apply(lambda text: f"{how}:{fingerprint(text)}"))


def _assignments(variables: Mapping[str, Input[str]]) -> Output[str]:
    """Shell that sets the variables, whatever their values hold."""

    def render(values: Mapping[str, str]) -> str:
        return "".join(f"{name}={quoted(values[name])}\n" for name in sorted(values))

    def quoted(value: str) -> str:
        return "'" + value.replace("'", "'\\''") + "'"

    return Output.secret(Output.all(**variables).apply(render))
