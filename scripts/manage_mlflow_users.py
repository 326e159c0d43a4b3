#!/usr/bin/env python3
"""Manage MLflow's users and permissions by hand.

    python scripts/manage_mlflow_users.py list-users
    python scripts/manage_mlflow_users.py create-user --username alice
    python scripts/manage_mlflow_users.py grant-exp --experiment-id 1 --username alice --permission EDIT

The administrator's credentials come from --admin-username and --admin-password-stdin, else from MLFLOW_TRACKING_USERNAME and
MLFLOW_TRACKING_PASSWORD, else from the stack's outputs, else from a prompt that shows nothing. From Python:

    from scripts.manage_mlflow_users import MLflowUserManager
    manager = MLflowUserManager(tracking_uri="http://localhost:5000")
    manager.authenticate("admin", password)
    manager.create_user("alice", "a-long-enough-password")
"""

from __future__ import annotations

import argparse
import getpass
import json
import os
import secrets
import sys
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

if __package__ in (None, ""):
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from components.checks import mlflow_password, mlflow_user_name
from components.mlflow_auth.auth_database import user_lister
from components.mlflow_auth.client import MlflowAuthClient, User, password_problem
from components.mlflow_auth.errors import MlflowAuthError, NotFound, WrongCredentials
from components.mlflow_auth.permissions import LEVELS, Target, experiment, model
from components.mlflow_auth.transport import checked_url
from components.problems import Refused
from scripts.arguments import ArgumentParser, argument, filled, text
from scripts.bootstrap import stack as stacks
from scripts.machine.problems import Problem
from scripts.machine.processes import end

DEFAULT_URI = "http://localhost:5000"
_RULE = "-" * 60
Say = Callable[[str], None]


class Refusal(Exception):
    """What these tools will not do, or cannot without more being said; the message says what to do instead."""


def badge(user: User) -> str:
    """A user's line in lists."""
    return f"{'👑 ADMIN' if user.is_admin else '👤 USER '} | {user.name} (ID: {user.id})"


class MLflowUserManager:
    """Users and permissions of one MLflow server. `authenticate` first; errors are `MlflowAuthError` or `Refusal`.

    With `dry_run` nothing is changed: the methods look, and say what they would do. `auth_container` is the Postgres container
    of the authentication database, which servers before 3.10 need for listing users. `declared` are users whom a Pulumi stack
    manages: changing one of them warns.
    """

    def __init__(
        self,
        tracking_uri: str = DEFAULT_URI,
        *,
        dry_run: bool = False,
        auth_container: str | None = "mlflow-postgres-auth",
        declared: Collection[str] = (),
        say: Say = print,
        warn: Say | None = None,
    ) -> None:
        self.tracking_uri = checked_url(tracking_uri)
        self.dry_run = dry_run
        self._lister = user_lister(auth_container) if auth_container else None
        self._declared = frozenset(declared)
        self._say = say
        self._warn = warn or say
        self._client: MlflowAuthClient | None = None

    @property
    def client(self) -> MlflowAuthClient:
        if self._client is None:
            raise Refusal("not logged in yet: call authenticate(username, password) first")
        return self._client

    def authenticate(self, username: str, password: str) -> User:
        """Log in; the account is used for everything that follows."""
        client = MlflowAuthClient(self.tracking_uri, username, password, user_lister=self._lister)
        user = client.authenticate(username, password)
        if user is None:
            raise WrongCredentials(
                f"MLflow at {self.tracking_uri} does not take this password of {username!r}; "
                "check user name, password and URL"
            )
        self._client = client
        return user

    # Reading

    def users(self) -> list[User]:
        """All users, by id."""
        return self.client.list_users()

    def list_users(self) -> list[User]:
        """Print all users, and return them."""
        users = self.users()
        self._say("📋 MLflow Users:")
        self._say(_RULE)
        for user in users:
            self._say(badge(user))
        self._say(_RULE)
        self._say(f"Total users: {len(users)}")
        return users

    def has_user(self, username: str) -> bool:
        """Whether there is an account of this name."""
        try:
            self.client.get_user(username)
        except NotFound:
            return False
        return True

    def show_user(self, username: str) -> dict[str, Any]:
        """Print what a user may do, and return it."""
        user = self.client.get_user(username)
        held = self.client.permissions_of(username)
        experiments = {t.name: level for t, level in held.items() if t.kind == "experiments"}
        names = {id_: self._experiment_name(id_) for id_ in experiments}
        models = {t.name: level for t, level in held.items() if t.kind == "registered-models"}
        default = self.client.default_permission(username)
        self._say(badge(user))
        self._say(_RULE)
        if user.is_admin:
            self._say("An administrator may do everything, whatever is granted below.")
        for id_, level in sorted(experiments.items()):
            self._say(f"{level:<14} experiment {id_} ({names[id_] or 'gone'})")
        for name, level in sorted(models.items()):
            self._say(f"{level:<14} model {name}")
        self._say(f"{default or 'default':<14} every other experiment and model" + _default_note(default))
        return {
            **as_json(user),
            "experiments": [
                {"id": id_, "name": names[id_], "permission": level}
                for id_, level in sorted(experiments.items())
            ],
            "models": [{"name": name, "permission": level} for name, level in sorted(models.items())],
            "default_permission": default,
        }

    def _experiment_name(self, experiment_id: str) -> str | None:
        try:
            return self.client.experiment(experiment_id).name
        except NotFound:
            return None

    # Users

    def create_user(self, username: str, password: str, *, is_admin: bool = False) -> bool:
        """Create an account; it must not exist yet."""
        _require(mlflow_user_name, username)
        _require(mlflow_password, password)
        if self.has_user(username):
            raise Refusal(
                f"there is a user {username!r} already; choose another name, or change-password for this one"
            )
        self._touch(username)
        return self._do(
            f"created {'administrator' if is_admin else 'user'} {username}",
            lambda: self.client.create_user(username, password, is_admin=is_admin),
        )

    def delete_user(self, username: str) -> bool:
        """Delete an account with all its permissions; never the last administrator, nor the one logged in."""
        user = self.client.get_user(username)
        if user.is_admin:
            self._require_another_admin(username, "deleted")
        if username == self.client.username:
            raise Refusal(
                f"{username!r} is logged in; log in as another administrator to delete this account"
            )
        self._touch(username)
        return self._do(f"deleted user {username}", lambda: self.client.delete_user(username))

    def change_password(self, username: str, new_password: str) -> bool:
        """Set a password. When it is one's own, this manager goes on with the new one."""
        _require(mlflow_password, new_password)
        self.client.get_user(username)
        self._touch(username)
        done = self._do(
            f"changed the password of {username}", lambda: self.client.set_password(username, new_password)
        )
        if done and username == self.client.username:
            self.authenticate(username, new_password)
        return done

    def promote_user(self, username: str) -> bool:
        """Make a user an administrator."""
        return self._set_admin(username, True)

    def demote_user(self, username: str) -> bool:
        """Make an administrator an ordinary user; never the last one."""
        return self._set_admin(username, False)

    def _set_admin(self, username: str, is_admin: bool) -> bool:
        user = self.client.get_user(username)
        role = "an administrator" if is_admin else "an ordinary user"
        if user.is_admin == is_admin:
            self._say(f"✔️  {username} is {role} already")
            return False
        if not is_admin:
            self._require_another_admin(username, "demoted")
        self._touch(username)
        return self._do(f"made {username} {role}", lambda: self.client.set_admin(username, is_admin))

    def _require_another_admin(self, username: str, what: str) -> None:
        if username != self.client.username and self.client.get_user(self.client.username).is_admin:
            return
        if not any(user.is_admin and user.name != username for user in self.users()):
            raise Refusal(
                f"{username!r} is the last administrator and is not {what}; promote another user first"
            )

    # Permissions

    def grant_experiment_permission(self, experiment_id: str, username: str, permission: str) -> bool:
        """Give a user a level on an experiment, whatever it was before."""
        self.client.experiment(str(experiment_id))
        return self._grant(username, experiment(str(experiment_id)), permission)

    def grant_model_permission(self, model_name: str, username: str, permission: str) -> bool:
        """Give a user a level on a registered model, which may not exist yet."""
        if not self.client.has_model(model_name):
            self._warn(f"⚠️  MLflow has no model {model_name!r} yet; the permission holds once there is one")
        return self._grant(username, model(model_name), permission)

    def revoke_experiment_permission(self, experiment_id: str, username: str) -> bool:
        """Take back what a user was granted on an experiment."""
        return self._revoke(username, experiment(str(experiment_id)))

    def revoke_model_permission(self, model_name: str, username: str) -> bool:
        """Take back what a user was granted on a registered model."""
        return self._revoke(username, model(model_name))

    def _grant(self, username: str, target: Target, level: str) -> bool:
        if level not in LEVELS:
            raise Refusal(f"{level!r} is no permission of MLflow; use one of {', '.join(LEVELS)}")
        self.client.get_user(username)
        if self.client.permission(username, target) == level:
            self._say(f"✔️  {username} has {level} on {target} already")
            return False
        self._touch(username)
        return self._do(
            f"granted {username} {level} on {target}",
            lambda: self.client.set_permission(username, target, level),
        )

    def _revoke(self, username: str, target: Target) -> bool:
        self.client.get_user(username)
        level = self.client.permission(username, target)
        if level is None:
            self._say(f"✔️  {username} was granted nothing on {target}")
            return False
        self._touch(username)
        return self._do(
            f"revoked {level} of {username} on {target}",
            lambda: self.client.remove_permission(username, target),
        )

    def _touch(self, username: str) -> None:
        if username in self._declared:
            self._warn(
                f"⚠️  {username} is declared in the stack: the next `pulumi refresh` and `pulumi up` put back what is declared; "
                "change the stack's configuration instead"
            )

    def _do(self, done: str, change: Callable[[], object]) -> bool:
        if self.dry_run:
            self._say(f"🔎 dry run, not done: {done}")
            return False
        change()
        self._say(f"✅ {done}")
        return True


def _default_note(default: str | None) -> str:
    return "" if default else " (the server's default permission; READ unless it was set otherwise)"


def _require(check: Callable[[Any], Any], value: str) -> None:
    try:
        check(value)
    except Refused as refused:
        raise Refusal(str(refused)) from None


def as_json(user: User) -> dict[str, Any]:
    """A user as programs read it."""
    return {"id": user.id, "username": user.name, "is_admin": user.is_admin}


# Where credentials come from


@dataclass
class Login:
    """The server and the administrator, from arguments, environment, the stack's outputs or a prompt, in this order.

    The stack's password goes to the stack's own server only.
    """

    args: argparse.Namespace
    warn: Say
    environment: Mapping[str, str] = field(default_factory=lambda: os.environ)

    @cached_property
    def outputs(self) -> dict[str, Any]:
        """The stack's outputs; none where there is no stack, or no Pulumi."""
        try:
            return dict(stacks.outputs(self.args.stack))
        except Problem as problem:
            self.why_no_stack = str(problem)
            return {}

    why_no_stack = ""

    @property
    def uri(self) -> str:
        given = self.args.tracking_uri or self.environment.get("MLFLOW_TRACKING_URI")
        return checked_url(given or self.outputs.get("mlflowUrl") or DEFAULT_URI)

    def username(self) -> str:
        given = self.args.admin_username or self._variable("USERNAME")
        return given or self.stack_admin or "admin"

    @property
    def stack_admin(self) -> str | None:
        """The stack's administrator; None where the server is not the stack's."""
        return self._of_stack("mlflowAdminUsername")

    def password(self, username: str) -> str:
        if self.args.admin_password_stdin:
            return read_line("the administrator's password")
        if self.args.admin_password is not None:
            self.warn(_visible("--admin-password"))
            return str(self.args.admin_password)
        given = self._variable("PASSWORD")
        if not given and username == self.stack_admin:
            given = self._of_stack("mlflowAdminPassword")
        if given:
            return given
        if not sys.stdin.isatty():
            raise Refusal(
                f"there is no password for {username!r}: set MLFLOW_TRACKING_PASSWORD, give it by --admin-password-stdin, or "
                f"run where the stack is{': ' + self.why_no_stack if self.why_no_stack else ''}"
            )
        return getpass.getpass(f"Password of {username} on {self.uri}: ")

    def manager(self, say: Say) -> MLflowUserManager:
        """A manager that is logged in."""
        ours = self._is_stacks_server()
        containers = self.outputs.get("containers", {}) if ours else {}
        declared = (
            {str(member.get("name")) for member in self.outputs.get("mlflowTeam") or []} if ours else set()
        )
        manager = MLflowUserManager(
            self.uri,
            dry_run=self.args.dry_run,
            auth_container=self.args.auth_container
            or containers.get("mlflow-postgres-auth", "mlflow-postgres-auth"),
            declared=declared,
            say=say,
            warn=self.warn,
        )
        username = self.username()
        manager.authenticate(username, self.password(username))
        return manager

    def _variable(self, name: str) -> str | None:
        return self.environment.get(f"MLFLOW_TRACKING_{name}") or self.environment.get(f"MLFLOW_ADMIN_{name}")

    def _of_stack(self, name: str) -> str | None:
        return self.outputs.get(name) if self._is_stacks_server() else None

    def _is_stacks_server(self) -> bool:
        return same_server(self.outputs.get("mlflowUrl", ""), self.uri)


def same_server(one: str, other: str) -> bool:
    """Whether two URLs lead to the same server; this machine has several names."""

    def parts(url: str) -> tuple[str, str, int | None, str]:
        split = urlsplit(url)
        host = "localhost" if split.hostname in ("127.0.0.1", "::1") else split.hostname or ""
        port = split.port or {"http": 80, "https": 443}.get(split.scheme)
        return split.scheme, host, port, split.path.rstrip("/")

    return parts(one) == parts(other)


def unknown_to_the_stack(stack: str) -> str:
    """What to do where the stack's administrator has a new password, and the configuration has the old one."""
    return (
        f"⚠️  the stack does not know the new password of its administrator: pulumi config set --stack {stack} --secret "
        f"{stacks.PROJECT}:mlflowAdminPassword, then {stacks.Stack(stack).make('up')}"
    )


def _visible(flag: str) -> str:
    return (
        f"⚠️  {flag} shows the password in the process list and the shell's history; prefer {flag}-stdin, the environment or "
        "the prompt"
    )


def read_line(what: str) -> str:
    """One line of standard input, which must be there."""
    line = sys.stdin.readline().rstrip("\n")
    if not line:
        raise Refusal(
            f"standard input holds no line for {what}; write one line for each password that is asked for"
        )
    return line


def new_password(args: argparse.Namespace, value: str | None, flag: str, whose: str, warn: Say) -> str:
    """The password to set: a line of standard input, the argument (with a warning), or typed twice."""
    if args.password_stdin:
        return read_line(f"the new password of {whose}")
    if value is not None:
        warn(_visible(flag).replace(f"{flag}-stdin", "--password-stdin"))
        return value
    if not sys.stdin.isatty():
        raise Refusal(f"there is no password for {whose}: give it by --password-stdin")
    return prompt_password(whose)


def prompt_password(whose: str, problem_of: Callable[[str], str | None] = password_problem) -> str:
    """A password typed twice, unseen."""
    while True:
        typed = getpass.getpass(f"New password of {whose}: ")
        problem = problem_of(typed)
        if problem is None and typed != getpass.getpass("Once more: "):
            problem = "the two differ"
        if problem is None:
            return typed
        print(f"❌ {problem}", file=sys.stderr)


def generated_password() -> str:
    """32 letters, digits, hyphens and underscores."""
    return secrets.token_urlsafe(24)


def _url(value: str) -> str:
    return checked_url(value) if value else value


def add_connection_arguments(parser: argparse.ArgumentParser) -> None:
    """What every command takes."""
    parser.add_argument(
        "--tracking-uri",
        type=argument(_url),
        help=f"MLflow's URL (else MLFLOW_TRACKING_URI, the stack's, or {DEFAULT_URI})",
    )
    parser.add_argument(
        "--admin-username",
        type=text,
        help="who logs in (else MLFLOW_TRACKING_USERNAME, the stack's, or admin)",
    )
    group = parser.add_mutually_exclusive_group()
    group.add_argument(
        "--admin-password-stdin",
        action="store_true",
        help="that user's password is the first line of standard input",
    )
    group.add_argument(
        "--admin-password",
        type=text,
        metavar="PASSWORD",
        help="that user's password, visible to others on this machine",
    )
    parser.add_argument(
        "--stack",
        type=filled,
        default="dev",
        help="the Pulumi stack to ask for URL and credentials (default: dev)",
    )
    parser.add_argument(
        "--auth-container",
        type=text,
        metavar="NAME",
        help="Postgres container of the authentication database",
    )
    parser.add_argument(
        "--dry-run", action="store_true", help="look, say what would be done, and change nothing"
    )
    parser.add_argument("--json", action="store_true", help="one JSON object on standard output")
    parser.add_argument("--yes", action="store_true", help="do not ask before something is deleted")


def _parser() -> ArgumentParser:
    parser = ArgumentParser(description="Manage MLflow's users and permissions.")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")

    def command(name: str, help_: str, *arguments: str) -> ArgumentParser:
        sub = commands.add_parser(name, help=help_, description=help_)
        for name in arguments:
            sub.add_argument(name, type=filled, required=True)
        add_connection_arguments(sub)
        return sub

    def experiment_of(sub: ArgumentParser) -> None:
        group = sub.add_mutually_exclusive_group(required=True)
        group.add_argument("--experiment-id", type=filled)
        group.add_argument("--experiment-name", type=filled)

    create = command("create-user", "add a user")
    create.add_argument("--username", type=argument(mlflow_user_name), required=True)
    secret = create.add_mutually_exclusive_group()
    secret.add_argument(
        "--password", type=argument(mlflow_password), help="the password, visible to others on this machine"
    )
    secret.add_argument(
        "--password-stdin", action="store_true", help="the password is a line of standard input"
    )
    create.add_argument("--admin", action="store_true", help="make the user an administrator")
    command("delete-user", "delete a user and all that was granted to the user", "--username")
    command("list-users", "show all users")
    command("show-user", "show what a user may do", "--username")
    change = command("change-password", "change a password: one's own, or that of --username")
    change.add_argument("--username", type=text)
    secret = change.add_mutually_exclusive_group()
    secret.add_argument(
        "--new-password",
        type=argument(mlflow_password),
        help="the new password, visible to others on this machine",
    )
    secret.add_argument(
        "--password-stdin", action="store_true", help="the new password is a line of standard input"
    )
    command("promote-user", "make a user an administrator", "--username")
    command("demote-user", "make an administrator an ordinary user", "--username")
    grant = command("grant-exp", "grant a user a permission on an experiment", "--username")
    experiment_of(grant)
    grant.add_argument("--permission", required=True, choices=LEVELS)
    experiment_of(command("revoke-exp", "take back a user's permission on an experiment", "--username"))
    grant = command(
        "grant-model", "grant a user a permission on a registered model", "--model-name", "--username"
    )
    grant.add_argument("--permission", required=True, choices=LEVELS)
    command(
        "revoke-model", "take back a user's permission on a registered model", "--model-name", "--username"
    )
    return parser


def _run(args: argparse.Namespace, say: Say, warn: Say) -> dict[str, Any]:
    """Carry out one command. What it returns is its JSON."""
    login = Login(args, warn)
    manager = login.manager(say)
    name: str = getattr(args, "username", None) or ""
    match args.command:
        case "list-users":
            users = manager.list_users()
            return {"users": [as_json(user) for user in users], "total": len(users)}
        case "show-user":
            return {"user": manager.show_user(name)}
        case "create-user":
            password = new_password(args, args.password, "--password", name, warn)
            changed = manager.create_user(name, password, is_admin=args.admin)
        case "delete-user":
            _confirm(args, f"Delete user {name} and all permissions of the user?")
            changed = manager.delete_user(name)
        case "change-password":
            name = name or manager.client.username
            changed = manager.change_password(
                name, new_password(args, args.new_password, "--new-password", name, warn)
            )
            if changed and name == login.stack_admin:
                warn(unknown_to_the_stack(args.stack))
        case "promote-user":
            changed = manager.promote_user(name)
        case "demote-user":
            changed = manager.demote_user(name)
        case "grant-exp":
            changed = manager.grant_experiment_permission(
                _experiment_id(args, manager), name, args.permission
            )
        case "revoke-exp":
            changed = manager.revoke_experiment_permission(_experiment_id(args, manager), name)
        case "grant-model":
            changed = manager.grant_model_permission(args.model_name, name, args.permission)
        case "revoke-model":
            changed = manager.revoke_model_permission(args.model_name, name)
        case other:
            raise AssertionError(f"no command {other!r}")
    return {"username": name, "changed": changed}


def _experiment_id(args: argparse.Namespace, manager: MLflowUserManager) -> str:
    if args.experiment_id is not None:
        return str(args.experiment_id)
    return manager.client.experiment_by_name(args.experiment_name).id


def _confirm(args: argparse.Namespace, question: str) -> None:
    if args.yes or args.dry_run:
        return
    if not sys.stdin.isatty():
        raise Refusal(f"{question} Add --yes: there is no terminal to ask on")
    if input(f"{question} [y/N] ").strip().lower() not in ("y", "yes"):
        raise Refusal("nothing was deleted")


def main(arguments: Sequence[str] | None = None) -> int:
    args = _parser().parse_args(arguments)
    return report(args, lambda say, warn: _run(args, say, warn))


def report(args: argparse.Namespace, run: Callable[[Say, Say], dict[str, Any]]) -> int:
    """Run with output as people or programs want it, and turn errors into one line and an exit code."""
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="replace")
    warnings: list[str] = []
    say: Say = (lambda _: None) if args.json else print

    def warn(text: str) -> None:
        warnings.append(text.removeprefix("⚠️  "))
        print(text, file=sys.stderr)

    try:
        result = run(say, warn)
    except (MlflowAuthError, Refusal, Problem, Refused, ValueError) as error:
        print(f"❌ {error}", file=sys.stderr)
        if args.json:
            print(json.dumps({"error": {"kind": type(error).__name__, "message": str(error)}}))
        return 1
    except (KeyboardInterrupt, EOFError):
        print("\n❌ interrupted", file=sys.stderr)
        return 130
    if args.json:
        print(
            json.dumps(
                {**result, "dry_run": args.dry_run, "warnings": warnings}, ensure_ascii=False, indent=2
            )
        )
    return 0


if __name__ == "__main__":
    end(main)
