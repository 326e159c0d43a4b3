"""MLflow's image with real Postgres and MinIO on a network of its own."""

from __future__ import annotations

import json
import secrets
import shutil
import subprocess
import tempfile
import time
from pathlib import Path

import requests

from tests.conditions import free_port

CONTEXT = Path(__file__).parents[3] / "images" / "mlflow"
TTL = 2


def docker(*arguments: str, check: bool = True) -> str:
    """What a docker command prints, errors included."""
    done = subprocess.run(
        ["docker", *arguments], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False
    )
    if check and done.returncode:
        raise AssertionError(f"docker {' '.join(arguments[:3])}: {done.stdout}")
    return done.stdout


def build(version: str, base: str) -> str:
    """The image of an MLflow version, through the build cache."""
    tag = f"mlops-stack-test/mlflow:{version}"
    arguments = ("--build-arg", f"BASE_IMAGE={base}", "--build-arg", f"MLFLOW_VERSION={version}")
    docker("build", "--quiet", *arguments, "--tag", tag, str(CONTEXT))
    return tag


class Stack:
    """Two databases, an artifact store and one MLflow server; `close` removes them."""

    def __init__(self, version: str, images: dict[str, str]) -> None:
        self.version = version
        self.images = images
        self.image = build(version, images["python"])
        self.prefix = f"t-{secrets.token_hex(3)}-"
        self.network = f"{self.prefix}net"
        self.secrets = {name: secrets.token_urlsafe(24) for name in ("postgres", "s3", "flask", "admin")}
        self.files = Path(tempfile.mkdtemp(prefix=self.prefix))
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.admin = ("admin", self.secrets["admin"])
        self._names: list[str] = []
        docker("network", "create", self.network)

    def start(self) -> None:
        """Everything, the server healthy at the end."""
        self._postgres("tracking")
        self._postgres("auth")
        self._minio()
        self._write_files()
        self.serve("server", "--publish", f"127.0.0.1:{self.port}:5000")
        self.wait(lambda: docker("exec", self.name("server"), "mlflow-stack-health", check=False), "healthy")

    def name(self, part: str) -> str:
        """A container's name."""
        return f"{self.prefix}{part}"

    def run(self, part: str, image: str, *options: str, command: tuple[str, ...] = ()) -> None:
        """A container in the background."""
        self._names.append(self.name(part))
        network = ("--network", self.network, "--network-alias", part)
        docker("run", "--detach", "--name", self.name(part), *network, *options, image, *command)

    def serve(self, part: str, *options: str, command: tuple[str, ...] = ()) -> None:
        """An MLflow server as hardened as the stack's."""
        environment = {
            "MLFLOW_S3_ENDPOINT_URL": "http://minio:9000",
            "MLFLOW_ARTIFACTS_DESTINATION": "s3://mlflow",
            "MLFLOW_WORKERS": "1",
            "MLFLOW_AUTH_CACHE_TTL_SECONDS": str(TTL),
            "MLFLOW_SERVER_ALLOWED_HOSTS": "mlflow.example,mlflow.example:*",
        }
        variables = [part for item in environment.items() for part in ("--env", "=".join(item))]
        files = [
            *("--volume", f"{self.files}/secrets:/run/secrets:ro"),
            *("--volume", f"{self.files}/basic_auth.ini:/etc/mlflow/basic_auth.ini:ro"),
        ]
        hardened = ("--cap-drop", "ALL", "--security-opt", "no-new-privileges")
        read_only = ("--read-only", "--tmpfs", "/tmp")
        self.run(part, self.image, *variables, *files, *hardened, *read_only, *options, command=command)

    def wait(self, ask, answer: str, seconds: float = 120) -> str:  # type: ignore[no-untyped-def]
        """Until the answer is in what is asked; the server's log in the error."""
        end = time.monotonic() + seconds
        while answer not in (said := ask()):
            if time.monotonic() > end:
                logs = {name: docker("logs", "--tail", "40", name, check=False) for name in self._names}
                raise AssertionError(f"no {answer!r} in {said!r}: {json.dumps(logs, indent=1)}")
            time.sleep(0.3)
        return said

    def api(self, method: str, path: str, **arguments) -> requests.Response:  # type: ignore[no-untyped-def]
        """A request as the administrator unless `auth` says otherwise."""
        arguments.setdefault("auth", self.admin)
        return requests.request(method, self.url + path, timeout=60, **arguments)

    def close(self) -> None:
        """Nothing stays."""
        if self._names:
            docker("rm", "--force", "--volumes", *self._names, check=False)
        docker("network", "rm", self.network, check=False)
        shutil.rmtree(self.files, ignore_errors=True)

    def _postgres(self, part: str) -> None:
        variables = (
            "POSTGRES_USER=mlflow",
            "POSTGRES_DB=mlflow",
            f"POSTGRES_PASSWORD={self.secrets['postgres']}",
        )
        self.run(part, self.images["postgres"], *[x for v in variables for x in ("--env", v)])
        ask = ("psql", "-h", "127.0.0.1", "-U", "mlflow", "-tc", "select 'answers'")
        self.wait(lambda: docker("exec", self.name(part), *ask, check=False), "answers")

    def _minio(self) -> None:
        variables = ("MINIO_ROOT_USER=mlflow-key", f"MINIO_ROOT_PASSWORD={self.secrets['s3']}")
        # A bucket is a folder below the data path.
        self.run(
            "minio",
            self.images["minio"],
            *[x for v in variables for x in ("--env", v)],
            *("--entrypoint", "/bin/sh"),
            command=("-c", "mkdir -p /data/mlflow && exec minio server /data"),
        )

    def _write_files(self) -> None:
        database = f"postgresql+psycopg2://mlflow:{self.secrets['postgres']}@"
        folder = self.files / "secrets"
        folder.mkdir()
        self.files.chmod(0o755)
        for name, value in {
            "MLFLOW_BACKEND_STORE_URI": f"{database}tracking:5432/mlflow",
            "MLFLOW_FLASK_SERVER_SECRET_KEY": self.secrets["flask"],
            "AWS_ACCESS_KEY_ID": "mlflow-key",
            "AWS_SECRET_ACCESS_KEY": self.secrets["s3"],
        }.items():
            (folder / name).write_text(value)
        (self.files / "basic_auth.ini").write_text(
            "[mlflow]\ndefault_permission = READ\nadmin_username = admin\n"
            f"admin_password = {self.secrets['admin']}\ndatabase_uri = {database}auth:5432/mlflow\n"
            "authorization_function = mlflow_stack_auth:authenticate\n"
        )
