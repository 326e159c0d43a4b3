"""MLflow's administrator and team, brought about over its API once the server runs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import pulumi
from pulumi import Output, ResourceOptions

from components.mlflow import MlflowStack
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
from components.settings import TeamMember
from components.site import TYPE

_BY_ID = "id:"


@dataclass(frozen=True, kw_only=True)
class MlflowTeamArgs:
    """The server and, through its settings, who shall have an account."""

    mlflow: MlflowStack


class MlflowTeam(pulumi.ComponentResource):
    """The administrator, and every declared user with their permissions."""

    def __init__(self, name: str, args: MlflowTeamArgs, opts: ResourceOptions | None = None) -> None:
        super().__init__(f"{TYPE}:MlflowTeam", name, {}, opts)
        mlflow, settings = args.mlflow, args.mlflow.settings
        self._server = mlflow.server.container
        self._create_experiments = settings.create_experiments
        self._secrets = mlflow.secrets
        self.admin = MlflowAdmin(
            "mlflow-admin",
            MlflowAdminArgs(
                url=mlflow.bootstrap_url,
                username=settings.admin_username,
                password=mlflow.secrets.admin_password,
                # Another container is looked at again: its database may be another one.
                server_id=self._server.id,
            ),
            self._opts(),
        )
        self._experiments: dict[str, Output[str]] = {}
        passwords = {member.name: self._member(member) for member in settings.users}
        self.passwords: Output[Mapping[str, str]] = Output.secret(Output.all(**passwords))
        self.register_outputs({})

    def _opts(self) -> ResourceOptions:
        # When the server itself is deleted, accounts need not be: they go with its database, or are kept with it.
        return ResourceOptions(parent=self, deleted_with=self._server)

    def _member(self, member: TeamMember) -> Output[str]:
        connection = self.admin.connection
        password = self._secrets.user_password(member)
        user = MlflowUser(
            f"mlflow-user-{member.name}",
            MlflowUserArgs(
                connection=connection,
                username=member.name,
                password=password,
                is_admin=member.admin,
                adopt=member.adopt,
            ),
            self._opts(),
        )
        for experiment, permission in sorted(member.experiments.items()):
            MlflowExperimentPermission(
                f"mlflow-{member.name}-experiment-{experiment}",
                MlflowExperimentPermissionArgs(
                    connection=connection,
                    username=user.username,
                    experiment_id=self._experiment_id(experiment),
                    permission=permission,
                ),
                self._opts(),
            )
        for model, permission in sorted(member.models.items()):
            MlflowRegisteredModelPermission(
                f"mlflow-{member.name}-model-{model}",
                MlflowRegisteredModelPermissionArgs(
                    connection=connection,
                    username=user.username,
                    model_name=model,
                    permission=permission,
                ),
                self._opts(),
            )
        return password

    def _experiment_id(self, name: str) -> pulumi.Input[str]:
        if name.startswith(_BY_ID):
            return name.removeprefix(_BY_ID)
        if name not in self._experiments:
            experiment = MlflowExperiment(
                f"mlflow-experiment-{name}",
                MlflowExperimentArgs(
                    connection=self.admin.connection, name=name, create=self._create_experiments
                ),
                self._opts(),
            )
            self._experiments[name] = experiment.experiment_id
        return self._experiments[name]
