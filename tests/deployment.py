"""A deployment of this project for tests: the real CLI and engine, with a state, settings and names of its own."""

from __future__ import annotations

import json
import os
import secrets
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from scripts.bootstrap import leftovers, stack, tools
from scripts.machine.paths import ROOT
from scripts.machine.processes import say
from tests.conditions import free_port
from tests.engine import docker

SERVICES = {
    "mlflow": (
        "mlflow-server",
        "mlflow-postgres",
        "mlflow-postgres-auth",
        "mlflow-minio",
        "mlflow-create-bucket",
    ),
    "langfuse": (
        *("langfuse-web", "langfuse-worker", "langfuse-postgres", "langfuse-clickhouse"),
        *("langfuse-redis", "langfuse-minio", "langfuse-init-minio"),
    ),
}
RUN_ONCE = ("mlflow-create-bucket", "langfuse-init-minio")
RUNNING = {product: [name for name in names if name not in RUN_ONCE] for product, names in SERVICES.items()}
# What the program consists of; a copy of it is deployed, so that tests neither see nor leave settings in the checkout.
_PROGRAM = ("Pulumi.yaml", "__main__.py", "components", "images", "requirements.txt", ".venv")
_SECONDS = 1500


@dataclass
class Done:
    """How a command ended."""

    code: int
    text: str

    def ok(self) -> Done:
        assert self.code == 0, self.text
        return self


@dataclass
class OnEngine:
    """A stack in `folder`, and everything whose name begins with `prefix` on the engine that `environment` names."""

    folder: Path
    environment: Mapping[str, str]
    prefix: str = field(default_factory=lambda: f"t-{secrets.token_hex(3)}-")
    stack: str = field(default_factory=lambda: f"t{secrets.token_hex(3)}")

    @property
    def settings(self) -> Path:
        return self.folder / f"Pulumi.{self.stack}.yaml"

    def docker(self, *arguments: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        """A docker command on that engine."""
        return docker(*arguments, check=check, environment=self.environment)

    def container(self, service: str) -> str:
        return f"{self.prefix}{service}"

    def inspect(self, service: str) -> dict[str, Any]:
        return json.loads(self.docker("inspect", self.container(service)).stdout)[0]

    def healthy(self, *services: str) -> bool:
        """Whether each of the services is, by its own check."""
        return all(self.inspect(service)["State"]["Health"]["Status"] == "healthy" for service in services)

    def containers(self) -> dict[str, str]:
        """Name -> id of its containers, running or not."""
        listed = self.docker(
            "ps", "-a", "--no-trunc", "--filter", f"name=^{self.prefix}", "--format", "{{.Names}} {{.ID}}"
        )
        return dict(line.split() for line in listed.stdout.splitlines())

    def left_over(self) -> list[str]:
        """Names of its containers, networks and volumes."""
        kinds = (("ps", "-a", "--format", "{{.Names}}"), ("network", "ls", "--format", "{{.Name}}"))
        commands = (*kinds, ("volume", "ls", "--format", "{{.Name}}"))
        return [
            name
            for command in commands
            for name in self.docker(*command).stdout.split()
            if name.startswith(self.prefix)
        ]

    def remove(self) -> None:
        """Take everything away, also what is half-made; only what the prefix names is touched."""
        names = list(self.containers())
        if names:
            self.docker("rm", "--force", "--volumes", *names, check=False)
        # Networks by their ids: an interrupted `up` may leave two of one name.
        for kind, key in (("network", "ID"), ("volume", "Name")):
            listed = self.docker(kind, "ls", "--format", f"{{{{.Name}}}} {{{{.{key}}}}}").stdout.splitlines()
            for name, which in map(str.split, listed):
                if name.startswith(self.prefix):
                    self.docker(kind, "rm", which, check=False)
        for tag in self.docker("images", "--format", "{{.Repository}}:{{.Tag}}").stdout.split():
            if tag.startswith(self.prefix):
                self.docker("rmi", tag, check=False)


@dataclass
class Deployment(OnEngine):
    """A stack in `folder`. Everything it makes on the engine has names that begin with `prefix`."""

    def __post_init__(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        for name in _PROGRAM:
            if not (self.folder / name).exists():
                (self.folder / name).symlink_to(ROOT / name)
        (self.folder / ".pulumi-state").mkdir(exist_ok=True)
        self.environment = {
            **self.environment,
            "PULUMI_BACKEND_URL": f"file://{self.folder}/.pulumi-state",
            "PULUMI_CONFIG_PASSPHRASE": secrets.token_urlsafe(16),
        }
        self.environment.pop("PULUMI_CONFIG_PASSPHRASE_FILE", None)
        self.pulumi("stack", "init", self.stack).ok()
        self.configure(namePrefix=self.prefix)

    def pulumi(self, *arguments: str, stdin: str | None = None) -> Done:
        """Run the CLI to its end; its output with errors."""
        which = () if arguments[:2] == ("stack", "init") else ("--stack", self.stack)
        done = subprocess.run(
            ["pulumi", "--non-interactive", "--color", "never", *which, *arguments],
            cwd=self.folder,
            env=self.environment,
            input=stdin,
            stdin=subprocess.DEVNULL if stdin is None else None,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=_SECONDS,
            check=False,
        )
        return Done(done.returncode, done.stdout)

    def configure(self, **settings: Any) -> None:
        """Give settings their values; None takes one away."""
        file = self.settings
        for key, value in settings.items():
            if value is None:
                self.pulumi("config", "rm", key).ok()
            elif isinstance(value, (dict, list)):
                # JSON is YAML, and the CLI has no command for a whole list.
                text = file.read_text()
                assert f"mlops-stack:{key}:" not in text, f"{key} is set already"
                head, _, rest = text.partition("config:\n")
                file.write_text(f"{head}config:\n  mlops-stack:{key}: {json.dumps(value)}\n{rest}")
            else:
                plain = str(value).lower() if isinstance(value, bool) else str(value)
                self.pulumi("config", "set", key, "--", plain).ok()

    @contextmanager
    def changed(self, **settings: Any) -> Iterator[None]:
        """Other settings for a while."""
        file = self.settings
        before = file.read_text()
        try:
            self.configure(**settings)
            yield
        finally:
            file.write_text(before)

    def configure_secret(self, key: str, value: str) -> None:
        """Give a setting a value that is encrypted at rest."""
        self.pulumi("config", "set", "--secret", key, stdin=value).ok()

    def up(self, *arguments: str) -> Done:
        return self.pulumi("up", "--yes", "--skip-preview", *arguments)

    def outputs(self) -> dict[str, Any]:
        done = subprocess.run(
            ["pulumi", "stack", "output", "--json", "--show-secrets", "--stack", self.stack],
            cwd=self.folder,
            env=self.environment,
            capture_output=True,
            text=True,
            check=True,
        )
        return json.loads(done.stdout)

    def export(self, *arguments: str) -> str:
        return self.pulumi("stack", "export", *arguments).ok().text

    def secret_values(self) -> set[str]:
        """Every secret of the deployment: what was generated and what is put out as a secret."""
        resources = json.loads(self.export("--show-secrets"))["deployment"]["resources"]
        # A public key is generated like a secret and is none.
        generated = {
            json.loads(item["outputs"]["result"]["plaintext"])
            for item in resources
            if item["type"].endswith(":RandomPassword") and not item["urn"].endswith("public-key")
        }
        outputs = self.outputs()
        shown = {value for key, value in outputs.items() if key.endswith(("Password", "SecretKey"))}
        return generated | shown | set((outputs.get("mlflowUserPasswords") or {}).values())

    def close(self) -> None:
        """Take everything away, also where a test failed half-way."""
        self.remove()
        shutil.rmtree(self.folder, ignore_errors=True)


def pulumi_environment() -> Mapping[str, str]:
    """That in which `pulumi` works; each deployment has a passphrase of its own."""
    return stack.tool_environment(tools.ensure(Path(sys.executable), say))


def make_up(made: Deployment, seen: stack.Stack) -> None:
    """What `make up` does where tools and images are there."""
    leftovers.clear(seen, say)
    made.up("--refresh").ok()


def free_ports() -> dict[str, int]:
    """Settings of the ports that a stack publishes."""
    return {key: free_port() for key in ("mlflowPort", "langfusePort", "langfuseMinioPort")}


@contextmanager
def deployment(folder: Path, environment: Mapping[str, str], **settings: Any) -> Iterator[Deployment]:
    """A deployment on free ports, not yet made; nothing of it stays."""
    made = Deployment(folder, environment)
    try:
        made.configure(dataRetention="delete", **free_ports(), **settings)
        yield made
    finally:
        made.close()


def run_client(python: Path, *arguments: str, variables: Mapping[str, str], cwd: Path) -> str:
    """Run a client program, from the stack's `clientEnv` alone; what it printed."""
    environment = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("MLFLOW_", "LANGFUSE_", "AWS_", "PYTHONPATH", "VIRTUAL_ENV"))
    }
    done = subprocess.run(
        [str(python), *arguments],
        env={**environment, **variables},
        cwd=cwd,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout
