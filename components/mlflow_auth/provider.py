"""Dynamic providers: what Pulumi calls to check, compare, create, read, change and delete MLflow's users and permissions.

They hold no state: Pulumi pickles them by reference, and everything they need arrives as properties of the resource. Every
`update` brings about what is declared from whatever it finds, so it also serves when a server was replaced: its database may be
another one, and an upgrade from 3.4 to 3.13 or later drops every NO_PERMISSIONS without a word.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, ClassVar

from pulumi.dynamic import (
    CheckFailure,
    CheckResult,
    CreateResult,
    DiffResult,
    ReadResult,
    ResourceProvider,
    UpdateResult,
)
from pulumi.output import Unknown
from pulumi.runtime import rpc

from components.checks import MLFLOW_DEFAULT_PASSWORDS, mlflow_user_name
from components.mlflow_auth.client import MlflowAuthClient, User, password_problem
from components.mlflow_auth.errors import (
    AlreadyExists,
    DefaultPassword,
    Forbidden,
    NotFound,
    Rejected,
    Transient,
    WrongCredentials,
)
from components.mlflow_auth.permissions import LEVELS, Target
from components.mlflow_auth.transport import Patience, checked_url
from components.problems import Refused

Props = dict[str, Any]

CONNECTION = ("url", "admin_username", "admin_password", "server_id", "server_name")
_WAIT_FOR_SERVER = 300.0


@dataclass(frozen=True)
class Connection:
    """Where a server is and who administers it, as a resource's properties say it."""

    url: str
    username: str
    password: str = field(repr=False)
    server_id: str

    @classmethod
    def of(cls, props: Mapping[str, Any]) -> Connection:
        return cls(props["url"], props["admin_username"], props["admin_password"], props["server_id"])


# The connection that the running program declares for each server. What is deleted was declared by an earlier program, and
# Pulumi hands `delete` the old state only: its address and password may be out of date.
_declared: dict[str, Connection] = {}

# The permissions that the running program declares, by server and id. On another database experiments have other numbers, and
# Pulumi deletes what it replaces last: what it takes for a permission of before may be one that it has just made.
_permissions: set[tuple[str, str]] = set()


@lru_cache(maxsize=64)
def _client(connection: Connection, tries: int = 5) -> MlflowAuthClient:
    # One for each server in the process, so that connections stay open and the version is asked once. The server's id is
    # part of the key: another container may run another version.
    return MlflowAuthClient(
        connection.url, connection.username, connection.password, patience=Patience(tries=tries)
    )


def _client_of(props: Mapping[str, Any]) -> MlflowAuthClient:
    return _client(Connection.of(props))


def _reader_of(props: Mapping[str, Any]) -> MlflowAuthClient:
    # Refreshing a large team while the server is down must not wait long for each of its resources.
    return _client(Connection.of(props), tries=2)


def _for_deletion(props: Mapping[str, Any], delete: Callable[[MlflowAuthClient], None]) -> None:
    """Delete with the connection declared now, else with the one that the resource was last changed with."""
    old, now = Connection.of(props), _declared.get(props["server_name"])
    if now is not None and now != old:
        try:
            return delete(_client(now))
        except (WrongCredentials, Transient):
            pass
    delete(_client(old))


def unknown(value: Any) -> bool:
    """Whether a preview does not know the value yet."""
    return value is None or isinstance(value, Unknown) or value == rpc.UNKNOWN


class _Provider(ResourceProvider):
    """What the resources share. Property names in `replace_on` make another thing of it; those in `compared` are changed in place."""

    serialize_as_secret_always = False

    replace_on: ClassVar[tuple[str, ...]]
    compared: ClassVar[tuple[str, ...]]

    def check(self, _olds: Props, news: Props) -> CheckResult:
        failures = [
            CheckFailure(key, problem)
            for key, problem in (
                (key, self.problem(key, news[key])) for key in news if not unknown(news[key])
            )
            if problem
        ]
        if not failures and not any(unknown(news[key]) for key in CONNECTION):
            _declared[news["server_name"]] = Connection.of(news)
        return CheckResult(news, failures)

    def problem(self, key: str, value: Any) -> str | None:
        """Why an input cannot be taken, without the value where it is secret; None when it can."""
        if key == "url":
            return _refusal(checked_url, value)
        if key in ("username", "admin_username"):
            return _refusal(mlflow_user_name, value)
        return None

    def diff(self, _id: str, olds: Props, news: Props) -> DiffResult:
        replaces = [key for key in self.replace_on if news.get(key) != olds.get(key)]
        changed = [key for key in (*self.compared, *CONNECTION) if news.get(key) != olds.get(key)]
        return DiffResult(changes=bool(replaces or changed), replaces=replaces, delete_before_replace=False)

    def create(self, props: Props) -> CreateResult:
        raise NotImplementedError

    def read(self, id_: str, props: Props) -> ReadResult:
        """What the server has now.

        One that does not answer, or does not take the administrator's password, tells nothing: the recorded state stays,
        and the server's or the administrator's own resource shows what is wrong.
        """
        try:
            found = self.find(id_, props)
        except (Transient, WrongCredentials):
            return ReadResult(id_, props)
        return ReadResult("", {}) if found is None else ReadResult(id_, {**props, **found})

    def find(self, id_: str, props: Props) -> Props | None:
        """The properties that the server knows better than the state, None when the thing is gone."""
        raise NotImplementedError


def _refusal(check: Callable[[Any], Any], value: Any) -> str | None:
    try:
        check(value)
    except (Refused, ValueError) as error:
        return str(error)
    return None


class AdminProvider(_Provider):
    """The administrator that MLflow itself creates at its first start. Here `admin_password` is the password he shall have."""

    replace_on = ("admin_username",)
    compared = ()

    def problem(self, key: str, value: Any) -> str | None:
        return password_problem(value) if key == "admin_password" else super().problem(key, value)

    def create(self, props: Props) -> CreateResult:
        self._establish(props, props.get("previous_password"))
        return CreateResult(props["admin_username"], props)

    def update(self, _id: str, olds: Props, news: Props) -> UpdateResult:
        self._establish(news, olds.get("admin_password") or news.get("previous_password"))
        return UpdateResult(news)

    def find(self, id_: str, props: Props) -> Props | None:
        if unknown(props.get("admin_password")) or _reader_of(props).authenticate(
            id_, props["admin_password"]
        ):
            return {"admin_username": id_}
        # Somebody changed it. An empty password differs from any, so that the next `up` tries to put it right.
        return {"admin_username": id_, "admin_password": ""}

    def delete(self, _id: str, _props: Props) -> None:
        """The account stays: without it nobody could administer what is kept."""

    def _establish(self, props: Props, old_password: str | None) -> None:
        client, username, password = _client_of(props), props["admin_username"], props["admin_password"]
        client.wait_until_ready(_WAIT_FOR_SERVER)
        admin = client.authenticate(username, password)
        if admin is None and old_password and old_password != password:
            before = _client(Connection(client.url, username, old_password, props["server_id"]))
            if before.authenticate(username, old_password):
                before.set_password(username, password)
                admin = client.authenticate(username, password)
        if admin is None:
            raise WrongCredentials(
                f"MLflow at {client.url} takes neither the configured password of {username!r} nor the one it had before. "
                "Somebody changed it: set the stack's admin password to the one that logs in, and run up again; then "
                "change it there. Where nobody knows it any more, another administrator can set it "
                "(manage_mlflow_users.py change-password)."
            )
        if not admin.is_admin:
            raise Forbidden(
                f"{username!r} can log in to MLflow at {client.url} and is not an administrator; let another administrator "
                "promote the user (manage_mlflow_users.py promote-user)"
            )
        for name in sorted({username, "admin"}):
            if any(client.authenticate(name, default) for default in MLFLOW_DEFAULT_PASSWORDS):
                raise DefaultPassword(
                    f"{name!r} logs in to MLflow at {client.url} with a password from MLflow's documentation; change it "
                    "(manage_mlflow_users.py change-password) or delete the user"
                )


class UserProvider(_Provider):
    """An account. Its id is its name."""

    replace_on = ("username",)
    compared = ("password", "is_admin")

    def problem(self, key: str, value: Any) -> str | None:
        return password_problem(value) if key == "password" else super().problem(key, value)

    def check(self, olds: Props, news: Props) -> CheckResult:
        result = super().check(olds, news)
        if not unknown(news["username"]) and news["username"] == news["admin_username"]:
            reason = (
                f"{news['username']!r} is the administrator of the stack itself; give the user another name"
            )
            result.failures.append(CheckFailure("username", reason))
        return result

    def create(self, props: Props) -> CreateResult:
        client, name, is_admin = _client_of(props), props["username"], props["is_admin"]
        try:
            user = client.create_user(name, props["password"], is_admin=is_admin)
        except AlreadyExists:
            if not props["adopt"] and not self._is_ours(client, props):
                raise AlreadyExists(
                    f"MLflow has a user {name!r} already, who is not managed by this stack. To take the account over, with "
                    "the declared password and role, set adopt: true for this user; else choose another name."
                ) from None
            user = self._converge(client, props, known_password=props["password"])
        return CreateResult(name, {**props, "user_id": user.id})

    def update(self, _id: str, olds: Props, news: Props) -> UpdateResult:
        known = news["password"] if olds["password"] == news["password"] else None
        user = self._converge(_client_of(news), news, known)
        return UpdateResult({**news, "user_id": user.id})

    def find(self, id_: str, props: Props) -> Props | None:
        client = _reader_of(props)
        password = props.get("password") or ""
        try:
            user = client.authenticate(id_, password) if password else None
            if user is None:
                user, password = client.get_user(id_), ""
        except NotFound:
            return None
        return {"username": id_, "is_admin": user.is_admin, "user_id": user.id, "password": password}

    def delete(self, id_: str, props: Props) -> None:
        with suppress(NotFound):
            _for_deletion(props, lambda client: client.delete_user(id_))

    @staticmethod
    def _is_ours(client: MlflowAuthClient, props: Props) -> bool:
        """Whether the account was made for this declaration: the declared password logs in, with no more rights than declared.

        An interrupted `up` leaves such an account, and so does a database that outlives the stack: nobody else has the password.
        """
        user = client.authenticate(props["username"], props["password"])
        return user is not None and user.is_admin <= props["is_admin"]

    @staticmethod
    def _converge(client: MlflowAuthClient, props: Props, known_password: str | None) -> User:
        """Give the account the declared password and role; create it where it is gone."""
        name, is_admin = props["username"], props["is_admin"]
        user = client.authenticate(name, known_password) if known_password else None
        if user is None:
            try:
                user = client.get_user(name)
            except NotFound:
                return client.create_user(name, props["password"], is_admin=is_admin)
            client.set_password(name, props["password"])
        if user.is_admin != is_admin:
            client.set_admin(name, is_admin)
        return User(name, is_admin, user.id)


class _PermissionProvider(_Provider):
    """One user's level on one thing. Its id is the user's name and what it is on: alice/experiments/3."""

    kind: ClassVar[str]
    key: ClassVar[str]
    compared = ("permission",)

    def check(self, olds: Props, news: Props) -> CheckResult:
        result = super().check(olds, news)
        if not result.failures and not any(unknown(news[key]) for key in ("server_name", *self.replace_on)):
            _permissions.add((news["server_name"], self._id(news)))
        return result

    def problem(self, key: str, value: Any) -> str | None:
        if key == "permission" and value not in LEVELS:
            return f"{value!r} is no permission of MLflow; use one of {', '.join(LEVELS)}"
        if key == self.key and not (isinstance(value, str) and value):
            return f"{value!r} is not a {self.key.replace('_', ' ')}; give it as text"
        return super().problem(key, value)

    def create(self, props: Props) -> CreateResult:
        target = Target(self.kind, props[self.key])
        _client_of(props).set_permission(props["username"], target, props["permission"])
        return CreateResult(self._id(props), props)

    def update(self, _id: str, _olds: Props, news: Props) -> UpdateResult:
        client, target = _client_of(news), Target(self.kind, news[self.key])
        if client.permission(news["username"], target) != news["permission"]:
            client.set_permission(news["username"], target, news["permission"])
        return UpdateResult(news)

    def find(self, id_: str, props: Props) -> Props | None:
        username, name = self._parse(id_)
        level = _reader_of(props).permission(username, Target(self.kind, name))
        return None if level is None else {"username": username, self.key: name, "permission": level}

    def delete(self, id_: str, props: Props) -> None:
        if (props["server_name"], id_) in _permissions:
            return
        username, name = self._parse(id_)
        _for_deletion(props, lambda client: client.remove_permission(username, Target(self.kind, name)))

    def _id(self, props: Props) -> str:
        return f"{props['username']}/{self.kind}/{props[self.key]}"

    def _parse(self, id_: str) -> tuple[str, str]:
        username, _, rest = id_.partition("/")
        kind, _, name = rest.partition("/")
        if not (username and name and kind == self.kind):
            raise Rejected(f"{id_!r} is not the id of a permission here; write USER/{self.kind}/NAME")
        return username, name


class ExperimentPermissionProvider(_PermissionProvider):
    kind = "experiments"
    key = "experiment_id"
    replace_on = ("username", "experiment_id")


class RegisteredModelPermissionProvider(_PermissionProvider):
    kind = "registered-models"
    key = "model_name"
    replace_on = ("username", "model_name")


class ExperimentProvider(_Provider):
    """An experiment that shall be there. Its id is its name; MLflow's own id is an output, another one on another database."""

    replace_on = ("name",)
    compared = ()

    def problem(self, key: str, value: Any) -> str | None:
        if key == "name" and not (isinstance(value, str) and value.strip() and len(value) <= 256):
            return f"{value!r} is not an experiment name of 1 to 256 characters"
        return super().problem(key, value)

    def create(self, props: Props) -> CreateResult:
        return CreateResult(props["name"], self._ensure(props))

    def update(self, _id: str, _olds: Props, news: Props) -> UpdateResult:
        return UpdateResult(self._ensure(news))

    def find(self, id_: str, props: Props) -> Props | None:
        try:
            found = _reader_of(props).experiment_by_name(id_)
        except NotFound:
            return None
        return None if found.deleted else {"name": id_, "experiment_id": found.id}

    def delete(self, _id: str, props: Props) -> None:
        if not props["retain"]:
            _for_deletion(props, lambda client: client.delete_experiment(props["experiment_id"]))

    @staticmethod
    def _ensure(props: Props) -> Props:
        client, name = _client_of(props), props["name"]
        if props["create"]:
            return {**props, "experiment_id": client.ensure_experiment(name).id}
        try:
            found = client.experiment_by_name(name)
        except NotFound:
            found = None
        if found is None or found.deleted:
            what, fix = ("only a deleted", "restore") if found else ("no", "create")
            raise NotFound(
                f"MLflow has {what} experiment {name!r}, and creating it is switched off; {fix} it, or switch that on"
            )
        return {**props, "experiment_id": found.id}
