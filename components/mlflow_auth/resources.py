"""MLflow's administrator, users, experiments and permissions as Pulumi resources.

    admin = MlflowAdmin("mlflow-admin", MlflowAdminArgs(url=url, username="admin", password=password, server_id=server.id))
    alice = MlflowUser("alice", MlflowUserArgs(connection=admin.connection, username="alice", password=secret))
    MlflowExperimentPermission("alice-churn", MlflowExperimentPermissionArgs(
        connection=admin.connection, username=alice.username, experiment_id=churn.experiment_id, permission="EDIT"))

Everything takes its connection from the administrator's resource, so it waits until that one has been seen to log in.
Take user names and experiment ids from the resources too: Pulumi then knows the order.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from pulumi import Input, Output, ResourceOptions
from pulumi.dynamic import Resource

from components.mlflow_auth.provider import (
    AdminProvider,
    ExperimentPermissionProvider,
    ExperimentProvider,
    RegisteredModelPermissionProvider,
    UserProvider,
)


@dataclass(frozen=True, kw_only=True)
class MlflowConnection:
    """How to reach a server and who administers it.

    `server_id` changes with the server's container: everything is then looked at again. `server_name` tells several servers
    of one program apart and stays the same when address or password change.
    """

    url: Input[str]
    username: Input[str]
    password: Input[str]
    server_id: Input[str] = ""
    server_name: str = "mlflow"

    def props(self) -> dict[str, Any]:
        """As the resources' properties."""
        return {
            "url": self.url,
            "admin_username": self.username,
            "admin_password": Output.secret(self.password),
            "server_id": self.server_id,
            "server_name": self.server_name,
        }


def _with_secrets(opts: ResourceOptions | None, *names: str) -> ResourceOptions:
    # What create and update return is plain in the state unless it is named here.
    secrets = ResourceOptions(additional_secret_outputs=["admin_password", *names])
    return ResourceOptions.merge(opts, secrets)


@dataclass(frozen=True, kw_only=True)
class MlflowAdminArgs:
    """The administrator whom MLflow creates at its first start, with the password he shall have.

    `previous_password` is tried when the password does not log in and the state knows no older one.
    """

    url: Input[str]
    username: Input[str]
    password: Input[str]
    server_id: Input[str] = ""
    server_name: str = "mlflow"
    previous_password: Input[str] | None = None


class MlflowAdmin(Resource, module="mlflow", name="Admin"):
    """Proof that the server runs and that its administrator logs in with the declared password, and with no default one."""

    url: Output[str]
    admin_username: Output[str]
    admin_password: Output[str]
    server_id: Output[str]

    def __init__(self, name: str, args: MlflowAdminArgs, opts: ResourceOptions | None = None) -> None:
        declared = MlflowConnection(
            url=args.url,
            username=args.username,
            password=args.password,
            server_id=args.server_id,
            server_name=args.server_name,
        )
        previous = None if args.previous_password is None else Output.secret(args.previous_password)
        props = {**declared.props(), "previous_password": previous}
        super().__init__(AdminProvider(), name, props, _with_secrets(opts, "previous_password"))
        self._server_name = args.server_name

    @property
    def connection(self) -> MlflowConnection:
        """What the other resources take, known once the administrator has been seen to log in."""
        return MlflowConnection(
            url=self.url,
            username=self.admin_username,
            password=self.admin_password,
            server_id=self.server_id,
            server_name=self._server_name,
        )


@dataclass(frozen=True, kw_only=True)
class MlflowUserArgs:
    """An account. One that exists already is taken over, with this password and role, only when `adopt` is true."""

    connection: MlflowConnection
    username: Input[str]
    password: Input[str]
    is_admin: Input[bool] = False
    adopt: Input[bool] = False


class MlflowUser(Resource, module="mlflow", name="User"):
    """A user of MLflow. Password and role change in place; the id is the user's name."""

    username: Output[str]
    password: Output[str]
    is_admin: Output[bool]
    user_id: Output[int]

    def __init__(self, name: str, args: MlflowUserArgs, opts: ResourceOptions | None = None) -> None:
        props = {
            **args.connection.props(),
            "username": args.username,
            "password": Output.secret(args.password),
            "is_admin": args.is_admin,
            "adopt": args.adopt,
            "user_id": None,
        }
        super().__init__(UserProvider(), name, props, _with_secrets(opts, "password"))


@dataclass(frozen=True, kw_only=True)
class MlflowExperimentArgs:
    """An experiment by name. `create` false only looks it up; `retain` false deletes it with the resource."""

    connection: MlflowConnection
    name: Input[str]
    create: Input[bool] = True
    retain: Input[bool] = True


class MlflowExperiment(Resource, module="mlflow", name="Experiment"):
    """An experiment that exists, restored where it was deleted. The id is its name."""

    experiment_id: Output[str]

    def __init__(self, name: str, args: MlflowExperimentArgs, opts: ResourceOptions | None = None) -> None:
        props = {
            **args.connection.props(),
            "name": args.name,
            "create": args.create,
            "retain": args.retain,
            "experiment_id": None,
        }
        super().__init__(ExperimentProvider(), name, props, _with_secrets(opts))


@dataclass(frozen=True, kw_only=True)
class MlflowExperimentPermissionArgs:
    """READ, EDIT, MANAGE or NO_PERMISSIONS for one user on one experiment."""

    connection: MlflowConnection
    username: Input[str]
    experiment_id: Input[str]
    permission: Input[str]


class MlflowExperimentPermission(Resource, module="mlflow", name="ExperimentPermission"):
    """What one user may do with one experiment. The level changes in place; the id is like alice/experiments/3."""

    username: Output[str]
    experiment_id: Output[str]
    permission: Output[str]

    def __init__(
        self, name: str, args: MlflowExperimentPermissionArgs, opts: ResourceOptions | None = None
    ) -> None:
        props = {
            **args.connection.props(),
            "username": args.username,
            "experiment_id": args.experiment_id,
            "permission": args.permission,
        }
        super().__init__(ExperimentPermissionProvider(), name, props, _with_secrets(opts))


@dataclass(frozen=True, kw_only=True)
class MlflowRegisteredModelPermissionArgs:
    """READ, EDIT, MANAGE or NO_PERMISSIONS for one user on one registered model, which need not exist yet."""

    connection: MlflowConnection
    username: Input[str]
    model_name: Input[str]
    permission: Input[str]


class MlflowRegisteredModelPermission(Resource, module="mlflow", name="RegisteredModelPermission"):
    """What one user may do with one model. The level changes in place; the id is like alice/registered-models/churn."""

    username: Output[str]
    model_name: Output[str]
    permission: Output[str]

    def __init__(
        self, name: str, args: MlflowRegisteredModelPermissionArgs, opts: ResourceOptions | None = None
    ) -> None:
        props = {
            **args.connection.props(),
            "username": args.username,
            "model_name": args.model_name,
            "permission": args.permission,
        }
        super().__init__(RegisteredModelPermissionProvider(), name, props, _with_secrets(opts))
