"""Permissions on experiments and registered models, in one vocabulary over MLflow's two API families.

MLflow 3.4 to 3.12 has a set of routes for each kind of thing, with the level NO_PERMISSIONS. From 3.13 one set of routes writes
to a role of the user's own, and what was NO_PERMISSIONS is DENY there (later 3.x only).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol

from components.mlflow_auth.errors import AlreadyExists, NotFound, Rejected, Unsupported
from components.mlflow_auth.transport import Transport

LEVELS = ("READ", "EDIT", "MANAGE", "NO_PERMISSIONS")
_DEFAULT_WORKSPACE = "default"


@dataclass(frozen=True, order=True)
class Target:
    """What a permission is on. `kind` is `experiments` (named by id) or `registered-models` (named by name)."""

    kind: str
    name: str

    def __str__(self) -> str:
        return f"experiment {self.name}" if self.kind == "experiments" else f"model {self.name!r}"


def experiment(experiment_id: str) -> Target:
    """The experiment with this id, as something to hold a permission on."""
    return Target("experiments", experiment_id)


def model(name: str) -> Target:
    """The registered model of this name, which need not exist yet."""
    return Target("registered-models", name)


class Permissions(Protocol):
    """What both families can do. A level is one of LEVELS, or a word of the server's own when somebody else set it."""

    def get(self, user: str, target: Target) -> str | None: ...
    def put(self, user: str, target: Target, level: str) -> None: ...
    def remove(self, user: str, target: Target) -> None: ...
    def held_by(self, user: str) -> dict[Target, str]: ...


@dataclass(frozen=True)
class RoutePerKind:
    """MLflow 3.4 to 3.12."""

    transport: Transport

    _KEYS: ClassVar[Mapping[str, str]] = {"experiments": "experiment_id", "registered-models": "name"}
    _ANSWERS: ClassVar[Mapping[str, str]] = {
        "experiments": "experiment_permission",
        "registered-models": "registered_model_permission",
    }

    def _call(self, what: str, method: str, action: str, user: str, target: Target, **more: str) -> Any:
        fields = {"username": user, self._KEYS[target.kind]: target.name, **more}
        path = f"/api/2.0/mlflow/{target.kind}/permissions/{action}"
        payload: dict[str, Any] = {"query": fields} if method == "GET" else {"body": fields}
        return self.transport.call(f"{what} {user!r} on {target}", method, path, **payload)

    def get(self, user: str, target: Target) -> str | None:
        try:
            answer = self._call("read the permission of", "GET", "get", user, target)
        except NotFound:
            return None
        return str(answer[self._ANSWERS[target.kind]]["permission"])

    def put(self, user: str, target: Target, level: str) -> None:
        what = f"grant {level} to"
        try:
            self._call(what, "POST", "create", user, target, permission=level)
        except AlreadyExists:
            self._call(what, "PATCH", "update", user, target, permission=level)

    def remove(self, user: str, target: Target) -> None:
        self._call("revoke the permission of", "DELETE", "delete", user, target)

    def held_by(self, user: str) -> dict[Target, str]:
        what = f"list the permissions of {user!r}"
        found = self.transport.call(what, "GET", "/api/2.0/mlflow/users/get", query={"username": user})[
            "user"
        ]
        return {
            Target(kind, str(entry[key])): str(entry["permission"])
            for kind, key in self._KEYS.items()
            for entry in found[self._ANSWERS[kind] + "s"]
        }


@dataclass(frozen=True)
class GrantRoutes:
    """MLflow 3.13 and later."""

    transport: Transport

    _TYPES: ClassVar[Mapping[str, str]] = {
        "experiments": "experiment",
        "registered-models": "registered_model",
    }
    _KINDS: ClassVar[Mapping[str, str]] = {type_: kind for kind, type_ in _TYPES.items()}

    def _call(self, what: str, action: str, user: str, target: Target, **more: str) -> Any:
        return self.transport.call(
            f"{what} {user!r} on {target}",
            "POST",
            f"/api/3.0/mlflow/users/permissions/{action}",
            body={
                "username": user,
                "resource_type": self._TYPES[target.kind],
                "resource_id": target.name,
                **more,
            },
        )

    def get(self, user: str, target: Target) -> str | None:
        # The `get` route answers with the default where nothing was granted, so it cannot tell.
        try:
            return self.held_by(user).get(target)
        except NotFound:
            return None

    def put(self, user: str, target: Target, level: str) -> None:
        theirs = "DENY" if level == "NO_PERMISSIONS" else level
        what = f"grant {level} to"
        try:
            self._call(what, "grant", user, target, permission=theirs)
        except AlreadyExists:
            self._change(what, user, target, theirs)
        except Rejected as error:
            if level != "NO_PERMISSIONS" or error.code != "INVALID_PARAMETER_VALUE":
                raise
            raise Unsupported(
                f"could not {what} {user!r} on {target}: this release of MLflow can deny nothing to one user; use 3.4.0 or "
                "3.17.2, or make NO_PERMISSIONS the default permission and grant what is allowed",
                status=error.status,
                code=error.code,
            ) from None

    def remove(self, user: str, target: Target) -> None:
        self._call("revoke the permission of", "revoke", user, target)

    def held_by(self, user: str) -> dict[Target, str]:
        return {
            Target(self._KINDS[grant["resource_type"]], str(grant["resource_pattern"])): _ours(
                grant["permission"]
            )
            for grant in self._own_grants(user)
        }

    def _change(self, what: str, user: str, target: Target, level: str) -> None:
        # Through the role's entry, because revoking and granting anew would leave a moment with the default permission.
        for grant in self._own_grants(user):
            if (grant["resource_type"], grant["resource_pattern"]) == (self._TYPES[target.kind], target.name):
                self.transport.call(
                    f"{what} {user!r} on {target}",
                    "PATCH",
                    "/api/3.0/mlflow/roles/permissions/update",
                    body={"role_permission_id": grant["id"], "permission": level},
                )
                return
        self._call(what, "grant", user, target, permission=level)

    def _own_grants(self, user: str) -> list[dict[str, Any]]:
        """What the user's own role holds on experiments and models; roles shared with others are not ours to manage."""
        what = f"list the permissions of {user!r}"
        roles = self.transport.call(
            what, "GET", "/api/3.0/mlflow/users/roles/list", query={"username": user}
        )["roles"]
        return [
            grant
            for role in roles
            if role["name"].startswith("__user_") and role["workspace"] == _DEFAULT_WORKSPACE
            for grant in role["permissions"]
            if grant["resource_type"] in self._KINDS
        ]


def _ours(level: str) -> str:
    return "NO_PERMISSIONS" if level == "DENY" else level
