"""MLflow with authentication, and its stores."""

from __future__ import annotations

import base64
import hmac
from dataclasses import dataclass
from urllib.parse import urlsplit

import pulumi
import pulumi_docker as docker
from pulumi import Input, Output, ResourceOptions

from components.minio import S3, Minio, MinioArgs
from components.postgres import Postgres, PostgresArgs
from components.secrets import Secrets
from components.service import Attachment, Health, Service, ServiceArgs
from components.settings import MlflowSettings, TeamMember
from components.site import TYPE, Site, in_url

_AUTH_CONFIG = "/etc/mlflow/basic_auth.ini"
_DRIVER = "postgresql+psycopg2"
# CVE-2026-2033, -2635, -2393, -2614, -2734, -2651, -33866, -4137, -8147, 2025-15381: mended in 3.5 to 3.16.1.
_VULNERABLE = "3.4.0"


@dataclass(frozen=True, kw_only=True)
class MlflowArgs:
    """The settings of the product."""

    settings: MlflowSettings


class MlflowSecrets:
    """Every secret of the product, generated or given."""

    def __init__(self, secrets: Secrets, settings: MlflowSettings) -> None:
        self.admin_password = secrets.password("mlflow-admin-password", settings.admin_password)
        self.postgres_password = secrets.password("mlflow-postgres-password", settings.postgres_password)
        self.auth_postgres_password = secrets.password(
            "mlflow-postgres-auth-password", settings.auth_postgres_password
        )
        self.minio_root_user = secrets.password("mlflow-minio-root-user", settings.minio_root_user, length=20)
        self.minio_root_password = secrets.password(
            "mlflow-minio-root-password", settings.minio_root_password
        )
        self.flask_secret_key = secrets.password(
            "mlflow-flask-secret-key", settings.flask_secret_key, length=64
        )
        # Passwords of users are derived from it: accounts come and go with the list, and what is kept keeps its password.
        self._team_key = secrets.password("mlflow-team-key", length=64)

    def user_password(self, member: TeamMember) -> Output[str]:
        """The declared password, else one that belongs to the name in this stack alone."""
        if member.password:
            return Output.secret(member.password)
        return self._team_key.apply(lambda key: _derived(key, member.name))


def _derived(key: str, name: str) -> str:
    digest = hmac.digest(key.encode(), f"mlflow-user:{name}".encode(), "sha256")
    return base64.urlsafe_b64encode(digest).decode()[:32]


class MlflowStack(pulumi.ComponentResource):
    """`mlflow-server`, `mlflow-postgres`, `mlflow-postgres-auth`, `mlflow-minio` and `mlflow-create-bucket`.

    A store that the settings give the address of is not created. Switched off, only secrets and volumes are declared.
    """

    server: Service

    def __init__(self, name: str, site: Site, args: MlflowArgs, opts: ResourceOptions | None = None) -> None:
        super().__init__(f"{TYPE}:MlflowStack", name, {}, opts)
        self.settings = settings = args.settings
        # First: secrets and volumes are made while the provider waits for the network.
        network = site.network("mlflow", self, internal=True) if settings.enabled else None
        secrets = site.secrets(self)
        self.secrets = MlflowSecrets(secrets, settings)
        self.volumes = site.volumes(settings.stores, self, secrets)
        self.containers: dict[str, docker.Container] = {}
        local = f"http://{site.host}:{settings.port}"
        self.url = settings.public_url or local
        self.bootstrap_url = settings.bootstrap_url or local.replace("//localhost:", "//127.0.0.1:")
        if network:
            self._run(site, network)
        self.register_outputs({"url": self.url})

    def _run(self, site: Site, network: docker.Network) -> None:
        settings, secrets = self.settings, self.secrets
        database_url = self._database(
            site,
            "mlflow-postgres",
            network,
            settings.database_url,
            database="mlflow",
            password=secrets.postgres_password,
            port=settings.postgres_port,
        )
        auth_database_url = self._database(
            site,
            "mlflow-postgres-auth",
            network,
            settings.auth_database_url,
            database="mlflow_auth",
            password=secrets.auth_postgres_password,
            port=settings.auth_postgres_port,
        )
        s3 = self._artifact_store(site, network)
        self.server = Service(
            "mlflow-server",
            site,
            ServiceArgs(
                image="mlflow",
                networks=[
                    Attachment(network=network, aliases=["mlflow-server"]),
                    Attachment(network=site.edge, aliases=["mlflow-server"]),
                ],
                memory=settings.memory,
                environment={
                    "MLFLOW_AUTH_CONFIG_PATH": _AUTH_CONFIG,
                    "MLFLOW_S3_ENDPOINT_URL": s3.endpoint,
                    "MLFLOW_ARTIFACTS_DESTINATION": f"s3://{settings.bucket}",
                    "MLFLOW_WORKERS": str(settings.workers),
                    "MLFLOW_THREADS": str(settings.threads),
                    "MLFLOW_DB_POOL_SIZE": str(settings.database_pool_size),
                    "MLFLOW_DB_MAX_OVERFLOW": str(settings.database_pool_size),
                    "MLFLOW_AUTH_CACHE_TTL_SECONDS": str(settings.auth_cache_seconds),
                    "MLFLOW_SERVER_ALLOWED_HOSTS": ",".join(allowed_hosts(settings, site.bind_address)),
                    **(
                        {"AWS_DEFAULT_REGION": settings.s3_region}
                        if settings.s3_endpoint and settings.s3_region
                        else {}
                    ),
                    **(
                        {"MLFLOW_SERVER_CORS_ALLOWED_ORIGINS": settings.public_url}
                        if settings.public_url
                        else {}
                    ),
                },
                secrets={
                    "MLFLOW_BACKEND_STORE_URI": database_url,
                    "MLFLOW_FLASK_SERVER_SECRET_KEY": secrets.flask_secret_key,
                    "AWS_ACCESS_KEY_ID": s3.access_key_id,
                    "AWS_SECRET_ACCESS_KEY": s3.secret_access_key,
                },
                files={_AUTH_CONFIG: self._auth_config(auth_database_url)},
                ports={5000: settings.port},
                health=Health(command=["mlflow-stack-health"], start_seconds=240),
                after=list(self.containers.values()),
                gates=s3.gates,
                reason="MLflow creates or upgrades the tables of its databases before it answers",
            ),
            ResourceOptions(parent=self),
        )
        self.containers["mlflow-server"] = self.server.container
        if site.images.version("mlflow") == _VULNERABLE:
            pulumi.log.warn(
                f"MLflow {_VULNERABLE} has known vulnerabilities; what it answered to strangers is closed here, and later "
                "releases mend the rest: pulumi config set mlflowVersion 3.17.2",
                self.server.container,
            )

    def _database(
        self,
        site: Site,
        name: str,
        network: docker.Network,
        managed: str,
        *,
        database: str,
        password: Input[str],
        port: int,
    ) -> Output[str]:
        if managed:
            return Output.secret(managed)
        settings = self.settings
        store = Postgres(
            name,
            site,
            PostgresArgs(
                database=database,
                password=password,
                volume=self.volumes[name],
                network=network,
                # Every server process keeps a pool to each database and may double it under load.
                connections=max(100, settings.workers * settings.database_pool_size * 2 + 20),
                published=port if site.publish_data_stores else None,
            ),
            ResourceOptions(parent=self),
        )
        self.containers[name] = store.service.container
        return store.url(_DRIVER)

    def _artifact_store(self, site: Site, network: docker.Network) -> S3:
        settings = self.settings
        if settings.s3_endpoint:
            return S3.managed(settings.s3_endpoint, settings.s3_access_key_id, settings.s3_secret_access_key)
        store = Minio(
            "mlflow-minio",
            site,
            MinioArgs(
                root_user=self.secrets.minio_root_user,
                root_password=self.secrets.minio_root_password,
                buckets=[settings.bucket],
                bucket_maker="mlflow-create-bucket",
                volume=self.volumes["mlflow-minio"],
                network=network,
                api_port=settings.minio_port if site.publish_data_stores else None,
                console_port=settings.minio_console_port if site.publish_data_stores else None,
            ),
            ResourceOptions(parent=self),
        )
        self.containers["mlflow-minio"] = store.service.container
        self.containers["mlflow-create-bucket"] = store.buckets.container
        return store.s3

    def _auth_config(self, database_url: Input[str]) -> Output[str]:
        settings = self.settings
        lines = [
            "[mlflow]",
            f"default_permission = {settings.default_permission}",
            f"admin_username = {settings.admin_username}",
            "authorization_function = mlflow_stack_auth:authenticate",
            f"auth_cache_ttl_seconds = {settings.auth_cache_seconds}",
        ]
        # A percent sign begins an interpolation in this file.
        url, password = (
            Output.from_input(text).apply(lambda text: text.replace("%", "%%"))
            for text in (database_url, self.secrets.admin_password)
        )
        return Output.secret(
            Output.concat("\n".join(lines), "\ndatabase_uri = ", url, "\nadmin_password = ", password, "\n")
        )


def allowed_hosts(settings: MlflowSettings, bind_address: str) -> list[str]:
    """Values of the Host header that MLflow takes: loopback, its own name, and what the settings say."""
    names = ["localhost", "127.0.0.1", "[::1]", "mlflow-server"]
    if bind_address not in ("0.0.0.0", "::"):
        names.append(in_url(bind_address))
    for url in (settings.public_url, settings.bootstrap_url):
        if url:
            names.append(in_url(urlsplit(url).hostname or ""))
    hosts = [pattern for name in names for pattern in (name, f"{name}:*")]
    for host in settings.allowed_hosts:
        hosts += [host] if ":" in host.rpartition("]")[2] else [host, f"{host}:*"]
    return list(dict.fromkeys(hosts))
