"""A client for MLflow's users, permissions and experiments. It needs `requests` only, and speaks to 3.4.0 and later."""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, TypeVar

from components.checks import mlflow_password
from components.mlflow_auth import errors
from components.mlflow_auth.permissions import GrantRoutes, Permissions, RoutePerKind, Target
from components.mlflow_auth.transport import Patience, Transport
from components.problems import Refused

_USERS = "/api/2.0/mlflow/users/"
_EXPERIMENTS = "/api/2.0/mlflow/experiments/"
_GRANT_ROUTES_SINCE = (3, 13)
_USER_LIST_SINCE = (3, 10)
_Result = TypeVar("_Result")


@dataclass(frozen=True)
class User:
    """An account on the server."""

    name: str
    is_admin: bool
    id: int


@dataclass(frozen=True)
class Experiment:
    """An experiment; a deleted one keeps its name until it is removed for good."""

    id: str
    name: str
    deleted: bool


def password_problem(password: str) -> str | None:
    """Why a password cannot be used, or None: by the rule of the settings, so that what is set by hand can be declared."""
    try:
        mlflow_password(password)
    except Refused as refused:
        return str(refused)
    return None


class MlflowAuthClient:
    """Talks to one server as one administrator. Threads may share it.

    `user_lister` returns all users where the server has no route that does (before 3.10).
    """

    def __init__(
        self,
        base_url: str,
        username: str,
        password: str,
        *,
        patience: Patience | None = None,
        user_lister: Callable[[], Iterable[User]] | None = None,
    ) -> None:
        self.username = username
        self._password = password
        self._transport = Transport(base_url, username, password, patience)
        self._user_lister = user_lister
        self._version: tuple[int, ...] | None = None
        self._version_lock = threading.Lock()

    def __repr__(self) -> str:
        return f"MlflowAuthClient({self.url!r}, {self.username!r})"

    @property
    def url(self) -> str:
        return self._transport.url

    # The server

    def wait_until_ready(self, timeout: float = 300.0) -> None:
        """Return once the server answers its health route; raise Transient when it does not within `timeout` seconds."""
        deadline = time.monotonic() + timeout
        pause = 0.1
        while (status := self._transport.health(timeout=5.0)) != 200:
            if time.monotonic() + pause > deadline:
                saw = "nothing answers" if status is None else f"it answers {status}"
                raise errors.Transient(
                    f"MLflow at {self.url} was not ready within {timeout:g} s: {saw}; read the server's log",
                    status=status,
                )
            time.sleep(pause)
            pause = min(pause * 1.5, 2.0)

    @property
    def version(self) -> tuple[int, ...]:
        """The server's version, asked once."""
        with self._version_lock:
            if self._version is None:
                self._version = self._ask_version()
            return self._version

    def _ask_version(self) -> tuple[int, ...]:
        text = str(self._transport.call("ask for MLflow's version", "GET", "/version"))
        match = re.match(r"\s*(\d+)\.(\d+)(?:\.(\d+))?", text)
        if not match:
            raise errors.Unsupported(
                f"{self.url}/version does not answer with a version; check that the URL is MLflow's"
            )
        return tuple(int(part or 0) for part in match.groups())

    # Users

    def authenticate(self, username: str, password: str) -> User | None:
        """The user whose name and password these are, None when the server does not take them."""
        try:
            return self._get_user(username, login=(username, password))
        except (errors.WrongCredentials, errors.NotFound):
            # Not found: a server process that still takes the password of a user who is gone.
            return None

    def get_user(self, username: str) -> User:
        return self._get_user(username)

    def _get_user(self, username: str, login: tuple[str, str] | None = None) -> User:
        what = f"read user {username!r}"
        answer = self._transport.call(what, "GET", _USERS + "get", query={"username": username}, login=login)
        return _user(answer["user"])

    def list_users(self) -> list[User]:
        """All users, in the order of their ids."""
        if self.version >= _USER_LIST_SINCE:
            users: Iterable[User] = map(
                _user, self._transport.call("list users", "GET", _USERS + "list")["users"]
            )
        elif self._user_lister is not None:
            users = self._user_lister()
        else:
            raise errors.Unsupported(
                f"MLflow {'.'.join(map(str, self.version))} has no route that lists users; read them from its database"
            )
        return sorted(users, key=lambda user: user.id)

    def create_user(self, username: str, password: str, *, is_admin: bool = False) -> User:
        """Create an account, which must not exist yet."""
        _require_password(password)
        body = {"username": username, "password": password}
        try:
            user = _user(
                self._transport.call(f"create user {username!r}", "POST", _USERS + "create", body=body)[
                    "user"
                ]
            )
        except errors.AlreadyExists as error:
            # A try whose answer was lost may have created it; then the new password is the proof.
            created = self.authenticate(username, password) if error.repeated else None
            if created is None:
                raise
            user = created
        if user.is_admin != is_admin:
            self.set_admin(username, is_admin)
        return User(user.name, is_admin, user.id)

    def set_password(self, username: str, password: str) -> None:
        """Change a password. One's own goes with the old one as proof, which newer servers ask for."""
        _require_password(password)
        body = {"username": username, "password": password}
        own = username == self.username
        if own:
            if password == self._password:
                return
            body["current_password"] = self._password
        what = f"change the password of {username!r}"
        try:
            self._transport.call(what, "PATCH", _USERS + "update-password", body=body)
        except (errors.WrongCredentials, errors.Rejected) as error:
            if not (own and error.repeated and self.authenticate(username, password)):
                raise

    def set_admin(self, username: str, is_admin: bool) -> None:
        what = f"make {username!r} {'an administrator' if is_admin else 'an ordinary user'}"
        self._transport.call(
            what, "PATCH", _USERS + "update-admin", body={"username": username, "is_admin": is_admin}
        )

    def delete_user(self, username: str) -> None:
        """Delete an account with all it was granted."""
        try:
            self._delete_user(username)
        except errors.Rejected as error:
            # Up to 3.5 MLflow refuses while the user holds permissions (BAD_REQUEST).
            if error.code != "BAD_REQUEST" or not (held := self.permissions_of(username)):
                raise
            for target in held:
                self.remove_permission(username, target)
            self._delete_user(username)

    def _delete_user(self, username: str) -> None:
        try:
            self._transport.call(
                f"delete user {username!r}", "DELETE", _USERS + "delete", body={"username": username}
            )
        except errors.NotFound as error:
            if not error.repeated:
                raise

    # Permissions

    def permission(self, username: str, target: Target) -> str | None:
        """The level granted to the user on `target`, None where nothing was granted (the server's default holds)."""
        return self._with_permissions(lambda permissions: permissions.get(username, target))

    def set_permission(self, username: str, target: Target, level: str) -> None:
        """Grant a level, whatever was granted before. MLflow does not ask whether the experiment or model exists."""
        self._with_permissions(lambda permissions: permissions.put(username, target, level))

    def remove_permission(self, username: str, target: Target) -> None:
        """Take back what was granted; the server's default permission holds again. What is gone already is fine."""
        with suppress(errors.NotFound):
            self._with_permissions(lambda permissions: permissions.remove(username, target))

    def permissions_of(self, username: str) -> dict[Target, str]:
        """All that was granted to the user himself."""
        return self._with_permissions(lambda permissions: permissions.held_by(username))

    def default_permission(self, username: str) -> str | None:
        """What holds for this user where nothing was granted; None where the server does not tell (before 3.13)."""
        if self.version < _GRANT_ROUTES_SINCE:
            return None
        try:
            answer = self._transport.call(
                f"ask for the default permission of {username!r}",
                "GET",
                "/api/3.0/mlflow/users/permissions/get",
                query={"username": username, "resource_type": "experiment", "resource_id": "*"},
            )
        except errors.Rejected:
            return None
        return str(answer["permission"])

    def _with_permissions(self, action: Callable[[Permissions], _Result]) -> _Result:
        asked = self.version
        try:
            return action(self._permissions(asked))
        except errors.RouteMissing:
            # The server may have been replaced by another release under this client.
            with self._version_lock:
                self._version = now = self._ask_version()
            if (now >= _GRANT_ROUTES_SINCE) == (asked >= _GRANT_ROUTES_SINCE):
                raise
            return action(self._permissions(now))

    def _permissions(self, version: tuple[int, ...]) -> Permissions:
        return (
            GrantRoutes(self._transport) if version >= _GRANT_ROUTES_SINCE else RoutePerKind(self._transport)
        )

    # Experiments and models

    def experiment(self, experiment_id: str) -> Experiment:
        what = f"read experiment {experiment_id}"
        return _experiment(
            self._transport.call(what, "GET", _EXPERIMENTS + "get", query={"experiment_id": experiment_id})
        )

    def experiment_by_name(self, name: str) -> Experiment:
        what = f"find experiment {name!r}"
        query = {"experiment_name": name}
        return _experiment(self._transport.call(what, "GET", _EXPERIMENTS + "get-by-name", query=query))

    def ensure_experiment(self, name: str) -> Experiment:
        """The experiment of this name: created where there is none, restored where it was deleted."""
        try:
            found = self.experiment_by_name(name)
        except errors.NotFound:
            try:
                answer = self._transport.call(
                    f"create experiment {name!r}", "POST", _EXPERIMENTS + "create", body={"name": name}
                )
            except errors.AlreadyExists:
                return self.experiment_by_name(name)
            return Experiment(str(answer["experiment_id"]), name, deleted=False)
        if found.deleted:
            what = f"restore experiment {name!r}"
            self._transport.call(what, "POST", _EXPERIMENTS + "restore", body={"experiment_id": found.id})
        return Experiment(found.id, name, deleted=False)

    def has_model(self, name: str) -> bool:
        """Whether a registered model of this name exists."""
        try:
            path = "/api/2.0/mlflow/registered-models/get"
            self._transport.call(f"look for model {name!r}", "GET", path, query={"name": name})
        except errors.NotFound:
            return False
        return True

    def delete_experiment(self, experiment_id: str) -> None:
        """Delete an experiment; MLflow keeps its runs until they are garbage-collected. What is gone already is fine."""
        what = f"delete experiment {experiment_id}"
        with suppress(errors.NotFound):
            self._transport.call(what, "POST", _EXPERIMENTS + "delete", body={"experiment_id": experiment_id})


def _require_password(password: str) -> None:
    problem = password_problem(password)
    if problem:
        raise errors.Rejected(problem)


def _user(answer: dict[str, Any]) -> User:
    return User(str(answer["username"]), bool(answer["is_admin"]), int(answer["id"]))


def _experiment(answer: dict[str, Any]) -> Experiment:
    found = answer["experiment"]
    return Experiment(
        str(found["experiment_id"]), str(found["name"]), deleted=found.get("lifecycle_stage") == "deleted"
    )
