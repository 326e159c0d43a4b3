"""The double on the four stores it needs, wired as the stack wires Langfuse, in one throw-away network."""

from __future__ import annotations

import hashlib
import secrets
from dataclasses import dataclass, field
from typing import Any

import requests

from tests.conditions import free_port, until
from tests.engine import DROPS_PRIVILEGES, HARDENED, Container, Engine, docker

COMMANDS = {
    "web": "dumb-init -- ./web/entrypoint.sh node ./web/server.js --keepAliveTimeout 110000",
    "worker": "dumb-init -- ./worker/entrypoint.sh node worker/dist/index.js",
}
WRAPPER = """
for file in /run/secrets/*; do
    export "$(basename "$file")=$(cat "$file")"
done
exec {command}
"""
BUCKETS = """
mc alias set s3 http://s3:9000 "$(cat /run/secrets/user)" "$(cat /run/secrets/password)"
mc mb s3/events s3/media
"""
CLICKHOUSE = "/etc/clickhouse-server"
CLICKHOUSE_QUERY = (
    'CLICKHOUSE_USER=langfuse CLICKHOUSE_PASSWORD="$(cat /run/secrets/password)"'
    ' clickhouse-client --query "SELECT 1"'
)
REDIS_CLI = 'REDISCLI_AUTH="$(cat /run/secrets/password)" exec redis-cli "$@"'
REDIS = "/usr/local/etc/redis/redis.conf"


@dataclass
class Credentials:
    """Every secret of one stack."""

    password: str = field(default_factory=lambda: secrets.token_hex(16))
    public_key: str = field(default_factory=lambda: f"pk-lf-{secrets.token_hex(8)}")
    secret_key: str = field(default_factory=lambda: f"sk-lf-{secrets.token_hex(8)}")
    salt: str = field(default_factory=lambda: secrets.token_urlsafe(32))
    encryption_key: str = field(default_factory=lambda: secrets.token_hex(32))


def environment(
    half: str, credentials: Credentials, *, url: str = "http://127.0.0.1:3000", media: str = "http://s3:9000"
) -> tuple[dict[str, str], dict[str, str]]:
    """(plain variables, secrets) as Langfuse's documentation asks for them."""
    plain = {
        "CLICKHOUSE_URL": "http://clickhouse:8123",
        "CLICKHOUSE_USER": "langfuse",
        "CLICKHOUSE_CLUSTER_ENABLED": "false",
        "REDIS_HOST": "redis",
        "REDIS_PORT": "6379",
        "LANGFUSE_S3_EVENT_UPLOAD_PREFIX": "events/",
        "LANGFUSE_S3_MEDIA_UPLOAD_PREFIX": "media/",
        "HOSTNAME": "0.0.0.0",
        "TELEMETRY_ENABLED": "false",
    }
    secret = {
        "DATABASE_URL": f"postgresql://langfuse:{credentials.password}@postgres:5432/langfuse?connection_limit=5",
        "CLICKHOUSE_PASSWORD": credentials.password,
        "REDIS_AUTH": credentials.password,
        "ENCRYPTION_KEY": credentials.encryption_key,
        "SALT": credentials.salt,
    }
    endpoints = {"EVENT": "http://s3:9000", "MEDIA": media if half == "web" else "http://s3:9000"}
    for family, endpoint in endpoints.items():
        name = f"LANGFUSE_S3_{family}_UPLOAD"
        plain |= {
            f"{name}_BUCKET": "events" if family == "EVENT" else "media",
            f"{name}_ENDPOINT": endpoint,
            f"{name}_REGION": "auto",
            f"{name}_FORCE_PATH_STYLE": "true",
        }
        secret |= {f"{name}_ACCESS_KEY_ID": "store-admin", f"{name}_SECRET_ACCESS_KEY": credentials.password}
    if half == "web":
        plain |= {
            "NEXTAUTH_URL": url,
            "CLICKHOUSE_MIGRATION_URL": "clickhouse://clickhouse:9000",
            "AUTH_DISABLE_SIGNUP": "true",
            "LANGFUSE_INIT_ORG_ID": "org",
            "LANGFUSE_INIT_PROJECT_ID": "project",
            "LANGFUSE_INIT_PROJECT_NAME": "Trials",
            "LANGFUSE_INIT_PROJECT_PUBLIC_KEY": credentials.public_key,
            "LANGFUSE_INIT_USER_EMAIL": "first@example.com",
        }
        secret |= {
            "NEXTAUTH_SECRET": credentials.salt,
            "LANGFUSE_INIT_PROJECT_SECRET_KEY": credentials.secret_key,
            "LANGFUSE_INIT_USER_PASSWORD": credentials.password,
        }
    return plain, secret


class Stack:
    """Six containers: four stores, web and worker."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self.credentials = Credentials()
        self.url = f"http://127.0.0.1:{free_port()}"
        self.media_url = f"http://127.0.0.1:{free_port()}"
        self.stores = {
            "postgres": self._postgres(),
            "clickhouse": self._clickhouse(),
            "redis": self._redis(),
            "s3": self._s3(),
        }
        for name in self.stores:
            self.wait_for_store(name)
        self.buckets = buckets = engine.run(
            "mc",
            "--entrypoint=/bin/sh",
            files={
                "/run/secrets/user": "store-admin",
                "/run/secrets/password": self.credentials.password,
                "/script.sh": BUCKETS,
            },
            command=("/script.sh",),
        )
        assert buckets.exit_code() == 0, buckets.logs()
        self.web = self._half("web", f"--publish=127.0.0.1:{self.url.rpartition(':')[2]}:3000")
        self.wait_for_web()
        self.worker = self._half("worker", "--network-alias=worker")
        self.wait_for_worker()

    def wait_for_store(self, name: str) -> None:
        """Until the store answers again."""
        self.stores[name].wait_for(
            *{
                "postgres": ("pg_isready", "-h", "127.0.0.1", "-U", "langfuse"),
                "clickhouse": ("wget", "-qO-", "http://127.0.0.1:8123/ping"),
                "redis": ("sh", "-c", f"({REDIS_CLI}) | grep PONG", "redis-cli", "ping"),
                "s3": ("curl", "-f", "http://127.0.0.1:9000/minio/health/live"),
            }[name]
        )

    def wait_for_web(self) -> None:
        """Until web says it is healthy, asked as the stack's health check asks."""
        self.web.wait_for(
            "wget", "-qO-", "http://127.0.0.1:3000/api/public/health?failIfDatabaseUnavailable=true"
        )

    def wait_for_worker(self) -> None:
        """Until the worker says it is healthy."""
        self.worker.wait_for("wget", "-qO-", "http://127.0.0.1:3030/api/health")

    def call(self, method: str, path: str, **more: Any) -> requests.Response:
        """One call of the public API with the project's keys."""
        more.setdefault("auth", (self.credentials.public_key, self.credentials.secret_key))
        return requests.request(method, f"{self.url}/api/public/{path}", timeout=30, **more)

    def trace(self, trace_id: str) -> dict[str, Any]:
        """A trace, as soon as it can be read back."""

        def found() -> dict[str, Any] | None:
            answer = self.call("GET", f"traces/{trace_id}")
            return answer.json() if answer.status_code == 200 else None

        return until(found, f"trace {trace_id}")

    def redis(self, *command: str) -> str:
        """What redis-cli prints."""
        return self.stores["redis"].exec("sh", "-c", REDIS_CLI, "redis-cli", *command).stdout.strip()

    def _half(self, half: str, *options: str) -> Container:
        plain, secret = environment(half, self.credentials, url=self.url, media=self.media_url)
        return self._engine.run(
            f"langfuse-{half}",
            *HARDENED,
            *options,
            *(f"--env={name}={value}" for name, value in plain.items()),
            "--entrypoint=/bin/sh",
            files={
                "/wrapper.sh": WRAPPER.format(command=COMMANDS[half]),
                **{f"/run/secrets/{name}": value for name, value in secret.items()},
            },
            command=("/wrapper.sh",),
        )

    def _postgres(self) -> Container:
        return self._engine.run(
            "postgres",
            *("--network-alias=postgres", "--env=POSTGRES_USER=langfuse", "--env=POSTGRES_DB=langfuse"),
            "--env=POSTGRES_PASSWORD_FILE=/run/secrets/password",
            files={"/run/secrets/password": self.credentials.password},
        )

    def _clickhouse(self) -> Container:
        digest = hashlib.sha256(self.credentials.password.encode()).hexdigest()
        user = (
            f"<password_sha256_hex>{digest}</password_sha256_hex><networks><ip>::/0</ip></networks>"
            "<profile>default</profile><quota>default</quota>"
        )
        return self._engine.run(
            "clickhouse",
            "--network-alias=clickhouse",
            f"--health-cmd={CLICKHOUSE_QUERY}",
            files={
                "/run/secrets/password": self.credentials.password,
                f"{CLICKHOUSE}/users.d/langfuse.xml": "<clickhouse><users><default remove='remove'/>"
                f"<langfuse>{user}</langfuse></users></clickhouse>",
            },
        )

    def _redis(self) -> Container:
        return self._engine.run(
            "redis",
            "--network-alias=redis",
            *DROPS_PRIVILEGES,
            files={
                REDIS: "include /run/secrets/auth.conf\nappendonly yes\nmaxmemory-policy noeviction\n",
                "/run/secrets/auth.conf": f"requirepass {self.credentials.password}\n",
                "/run/secrets/password": self.credentials.password,
            },
            command=("redis-server", REDIS),
        )

    def _s3(self) -> Container:
        return self._engine.run(
            "minio",
            "--network-alias=s3",
            f"--publish=127.0.0.1:{self.media_url.rpartition(':')[2]}:9000",
            "--env=MINIO_ROOT_USER=store-admin",
            "--env=MINIO_ROOT_PASSWORD_FILE=/run/secrets/password",
            files={"/run/secrets/password": self.credentials.password},
            command=("server", "/data"),
        )


def label(image: str, name: str) -> str:
    """One label of an image."""
    return docker(
        "image", "inspect", "--format", f'{{{{index .Config.Labels "{name}"}}}}', image
    ).stdout.strip()
