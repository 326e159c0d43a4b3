"""MLflow servers with authentication, for the tests of its users."""

from __future__ import annotations

import subprocess
from dataclasses import dataclass
from pathlib import Path

from components.mlflow_auth.client import MlflowAuthClient

VERSIONS = ("3.4.0", "3.17.2")


@dataclass(frozen=True)
class Server:
    """An MLflow server that is ready, and its administrator."""

    version: str
    url: str
    admin: str
    password: str

    @property
    def url_for_clients(self) -> str:
        """The URL that scripts beside the server use."""
        return self.url

    def client(self) -> MlflowAuthClient:
        return MlflowAuthClient(self.url, self.admin, self.password)

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
        """Run a script with the real mlflow client of the server's version."""
        python = f"/tmp/h/c-venv-{self.version}/bin/python"
        done = subprocess.run(
            [python, str(script)], input=given, capture_output=True, text=True, timeout=300, check=False
        )
        assert done.returncode == 0, done.stderr[-3000:]
        return done.stdout.splitlines()[-1]
