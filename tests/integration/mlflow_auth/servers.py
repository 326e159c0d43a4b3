"""MLflow servers with authentication, for the tests of its users: the project's own image over real databases."""

from __future__ import annotations

import subprocess
from dataclasses import dataclass, field
from pathlib import Path

from components.mlflow_auth.auth_database import user_lister
from components.mlflow_auth.client import MlflowAuthClient
from tests.integration.mlflow_image.stack import Stack

VERSIONS = ("3.4.0", "3.17.2")


@dataclass(frozen=True)
class Server:
    """An MLflow server that is ready, its administrator, and the containers that it consists of."""

    version: str
    url: str
    admin: str
    password: str = field(repr=False)
    container: str
    auth_container: str

    @classmethod
    def of(cls, stack: Stack) -> Server:
        """The server of a stack that has been started."""
        return cls(
            stack.version,
            stack.url,
            *stack.admin,
            container=stack.name("server"),
            auth_container=stack.name("auth"),
        )

    def client(self) -> MlflowAuthClient:
        """The administrator's client."""
        lister = user_lister(self.auth_container)
        return MlflowAuthClient(self.url, self.admin, self.password, user_lister=lister)

    def connection(self) -> dict[str, str]:
        """As properties of the resources."""
        return {
            "url": self.url,
            "admin_username": self.admin,
            "admin_password": self.password,
            "server_id": "one",
            "server_name": f"mlflow-{self.version}",
        }

    def run_client(self, script: Path, given: str) -> str:
        """Run a script with the real mlflow client of the server's version, in the container; the last line it prints."""
        done = subprocess.run(
            ["docker", "exec", "--interactive", self.container, "python", "-c", script.read_text()],
            input=given,
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )
        assert done.returncode == 0, done.stderr[-3000:]
        return done.stdout.splitlines()[-1]
