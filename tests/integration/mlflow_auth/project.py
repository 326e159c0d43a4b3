"""A throw-away Pulumi project whose program declares a team; driven by the real `pulumi`."""

from __future__ import annotations

import json
import os
import secrets
import subprocess
import sys
from pathlib import Path
from typing import Any

from scripts.bootstrap import stack, tools
from scripts.machine.paths import ROOT
from scripts.machine.processes import say
from tests.integration.mlflow_auth.servers import Server

_PROGRAM = """
import json
import os
from pathlib import Path

import pulumi

from components.mlflow_auth.registration import begin_before_waiting
from components.mlflow_auth.resources import (
    MlflowAdmin,
    MlflowAdminArgs,
    MlflowExperiment,
    MlflowExperimentArgs,
    MlflowExperimentPermission,
    MlflowExperimentPermissionArgs,
    MlflowRegisteredModelPermission,
    MlflowRegisteredModelPermissionArgs,
    MlflowUser,
    MlflowUserArgs,
)

given = json.loads(Path("team.json").read_text())
admin = MlflowAdmin(
    "admin",
    MlflowAdminArgs(
        url=os.environ["T_URL"], username=os.environ["T_ADMIN"], password=given["admin_password"], server_id="one"
    ),
)
experiments = {
    name: MlflowExperiment(name, MlflowExperimentArgs(connection=admin.connection, name=name, retain=False))
    for name in given["experiments"]
}
for name, member in given["team"].items():
    user = MlflowUser(
        name,
        MlflowUserArgs(
            connection=admin.connection,
            username=name,
            password=member["password"],
            is_admin=member.get("admin", False),
            adopt=member.get("adopt", False),
        ),
    )
    for experiment, level in member.get("experiments", {}).items():
        MlflowExperimentPermission(
            f"{name}-{experiment}",
            MlflowExperimentPermissionArgs(
                connection=admin.connection,
                username=user.username,
                experiment_id=experiments[experiment].experiment_id if experiment in experiments else experiment,
                permission=level,
            ),
        )
    for model, level in member.get("models", {}).items():
        MlflowRegisteredModelPermission(
            f"{name}-{model}",
            MlflowRegisteredModelPermissionArgs(
                connection=admin.connection, username=user.username, model_name=model, permission=level
            ),
        )
    pulumi.export(name, user.password)
begin_before_waiting()
"""

Team = dict[str, dict[str, Any]]


class Project:
    """A stack of its own below `folder`, its state a file there, with the Pulumi that the project's own commands use."""

    def __init__(self, folder: Path, server: Server) -> None:
        self._folder, self._server = folder, server
        self.admin_password = server.password
        (folder / "state").mkdir()
        (folder / "__main__.py").write_text(_PROGRAM)
        (folder / "Pulumi.yaml").write_text("name: team-test\nruntime: python\n")
        pulumi = tools.ensure(Path(sys.executable), say)
        environment = stack.tool_environment(pulumi)
        for name in ("PULUMI_CONFIG_PASSPHRASE_FILE", "PULUMI_STACK"):
            environment.pop(name, None)
        # The language host takes the first Python on PATH: this one.
        path = [str(pulumi.folder), str(Path(sys.executable).parent), environment["PATH"]]
        self._pulumi = pulumi.pulumi
        self._environment = {
            **environment,
            "VIRTUAL_ENV": sys.prefix,
            "PATH": os.pathsep.join(path),
            "PYTHONPATH": str(ROOT),
            "PULUMI_BACKEND_URL": (folder / "state").as_uri(),
            "PULUMI_CONFIG_PASSPHRASE": secrets.token_hex(16),
            "T_URL": server.url,
            "T_ADMIN": server.admin,
        }
        self("stack", "init", "test")

    def __call__(self, *arguments: str, fails: bool = False) -> str:
        """Run a pulumi command; what it prints, errors included."""
        done = subprocess.run(
            [self._pulumi, *arguments, "--non-interactive"],
            cwd=self._folder,
            env=self._environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
        )
        assert (done.returncode != 0) == fails, f"pulumi {' '.join(arguments)}\n{done.stdout}"
        return done.stdout

    def declare(self, team: Team, experiments: tuple[str, ...] = ()) -> None:
        """Write the team into the program's input."""
        given = {"admin_password": self.admin_password, "team": team, "experiments": experiments}
        (self._folder / "team.json").write_text(json.dumps(given))

    def up(self, *options: str, fails: bool = False) -> str:
        """`pulumi up`."""
        return self("up", "--yes", "--skip-preview", *options, fails=fails)

    def destroy(self) -> str:
        """`pulumi destroy`."""
        return self("destroy", "--yes", "--skip-preview")

    def state(self) -> str:
        """The stack's state as it is stored, secrets encrypted."""
        return self("stack", "export")
