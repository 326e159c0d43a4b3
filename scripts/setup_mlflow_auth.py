#!/usr/bin/env python3
"""Set up MLflow's team for the first time: the administrator's password, the members, their permissions.

    python scripts/setup_mlflow_auth.py                      asks for everything
    python scripts/setup_mlflow_auth.py --member alice --admin-member bob --keep-admin-password --write-config
    python scripts/setup_mlflow_auth.py --team team.json     the members as the stack's mlflowUsers lists them

Running it again is harmless: existing users stay as they are. With --write-config what was done is written into the stack's
configuration, secrets encrypted, and from the next `make up` on the stack looks after it.
"""

from __future__ import annotations

import json
import sys
from argparse import Namespace
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

if __package__ in (None, ""):
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from components.checks import mlflow_user_name
from components.mlflow_auth.client import User, password_problem
from components.mlflow_auth.permissions import LEVELS
from components.problems import Refused
from components.settings import team_members
from scripts.arguments import ArgumentParser, argument, filled
from scripts.bootstrap.stack import Stack, is_text_in_list
from scripts.machine.processes import end
from scripts.manage_mlflow_users import (
    Login,
    MLflowUserManager,
    Refusal,
    Say,
    add_connection_arguments,
    as_json,
    generated_password,
    prompt_password,
    read_line,
    report,
    unknown_to_the_stack,
)


@dataclass
class Member:
    """One of the team. Without a password one is generated. Experiments are named, or given as id:<id>."""

    name: str
    is_admin: bool = False
    password: str | None = None
    experiments: dict[str, str] = field(default_factory=dict)
    models: dict[str, str] = field(default_factory=dict)


@dataclass
class Setup:
    """What the guided and the unattended set-up share. `stack` is the one that the server belongs to, if any."""

    manager: MLflowUserManager
    say: Say
    warn: Say
    stack: Stack | None = None
    stack_admin: str | None = None
    # Of the stack's administrator, as long as the stack does not know it.
    new_admin_password: str | None = None
    done: list[Member] = field(default_factory=list)
    generated: dict[str, str] = field(default_factory=dict)

    @property
    def by_stack_admin(self) -> bool:
        """Whether the stack's administrator is logged in, whose password is a setting."""
        return self.manager.client.username == self.stack_admin

    def set_admin_password(self, password: str) -> None:
        """Change the password of the administrator who is logged in."""
        if self.manager.change_password(self.manager.client.username, password) and self.by_stack_admin:
            self.new_admin_password = password

    def add(self, member: Member) -> None:
        """Create the member if nobody has the name, and grant what was asked for."""
        if self.manager.has_user(member.name):
            self.say(f"✔️  {member.name} exists already; password and role stay as they are")
        else:
            password = member.password or generated_password()
            self.manager.create_user(member.name, password, is_admin=member.is_admin)
            if member.password is None and not self.manager.dry_run:
                self.generated[member.name] = password
            member.password = password
        if self.manager.dry_run and not self.manager.has_user(member.name):
            return
        for name, level in member.experiments.items():
            self.manager.grant_experiment_permission(self._experiment_id(name), member.name, level)
        for name, level in member.models.items():
            self.manager.grant_model_permission(name, member.name, level)
        self.done.append(member)

    def _experiment_id(self, name: str) -> str:
        client = self.manager.client
        if name.startswith("id:"):
            return name.removeprefix("id:")
        return (client.experiment_by_name if self.manager.dry_run else client.ensure_experiment)(name).id

    def write_config(self, stack: Stack) -> None:
        """Declare in the stack's configuration what was done. Members declared there already stay as they are."""
        new_password = self.new_admin_password
        if new_password is not None:
            stack.set_config("mlflowAdminPassword", new_password, secret=True)
            self.new_admin_password = None
        declared = stack.get_config("mlflowUsers") or []
        names = {entry.get("name") for entry in declared}
        index = len(declared)
        for member in self.done:
            if member.name in names:
                self.say(f"✔️  {member.name} is declared in the configuration already")
            elif member.password is None:
                self.warn(
                    f"⚠️  {member.name} is not declared: the password is not known here. To let the stack look after the "
                    "account, add it to mlflowUsers with its password and adopt: true"
                )
            else:
                with _whole_or_not_at_all(stack):
                    _declare(stack, f"mlflowUsers[{index}]", member, member.password)
                self.say(f"✅ declared {member.name} in the configuration")
                index += 1
        up = stack.make("up")
        if new_password is not None:
            self.warn(f"⚠️  run `{up}` now: until then the other tools log in with the old password")
        elif index > len(declared):
            self.say(f"Run `{up}` now: from then on the stack looks after what was declared.")


def _declare(stack: Stack, path: str, member: Member, password: str) -> None:
    stack.set_config(f"{path}.name", member.name)
    stack.set_config(f"{path}.password", password, secret=True)
    stack.set_config(f"{path}.adopt", "true")
    if member.is_admin:
        stack.set_config(f"{path}.admin", "true")
    for kind, held in (("experiments", member.experiments), ("models", member.models)):
        for thing, level in held.items():
            # The only escape that Pulumi's paths know.
            quoted = thing.replace('"', '\\"')
            stack.set_config(f'{path}.{kind}["{quoted}"]', level)


@contextmanager
def _whole_or_not_at_all(stack: Stack) -> Iterator[None]:
    """Pulumi writes one value at a time; a user who is half declared would be taken for somebody else's account."""
    before = stack.settings
    try:
        yield
    except BaseException:
        stack.write_settings(before)
        raise


def _declarable(password: str) -> str | None:
    """Why the password of a member cannot be used where it is to be declared, or None."""
    if is_text_in_list(password):
        return password_problem(password)
    return "the password has digits only, which the configuration takes for a number; choose one with other characters"


def _guide(setup: Setup) -> None:
    """Ask for everything."""
    setup.manager.list_users()
    if not _yes(f"Keep the password of {setup.manager.client.username}?", default=True):
        setup.set_admin_password(prompt_password(setup.manager.client.username))
    while name := input("Name of a team member (empty to finish): ").strip():
        member = Member(name)
        if not setup.manager.has_user(name):
            member.is_admin = _yes("Administrator?", default=False)
            if not _yes("Generate a password?", default=True):
                member.password = prompt_password(name, _declarable if setup.stack else password_problem)
        grants = input("Permissions, such as churn=EDIT model:classifier=READ (empty: none): ").split()
        try:
            _grants(member, grants)
            setup.add(member)
        except Refusal as refusal:
            setup.warn(f"❌ {refusal}")


def _grants(member: Member, grants: Iterable[str]) -> None:
    for grant in grants:
        thing, _, level = grant.rpartition("=")
        if not thing or level not in LEVELS:
            raise Refusal(
                f"{grant!r} is not NAME=LEVEL or model:NAME=LEVEL with a level out of {', '.join(LEVELS)}"
            )
        kind, held = ("model:", member.models) if thing.startswith("model:") else ("", member.experiments)
        held[thing.removeprefix(kind)] = level


def _yes(question: str, *, default: bool) -> bool:
    answer = input(f"{question} [{'Y/n' if default else 'y/N'}] ").strip().lower()
    return default if not answer else answer in ("y", "yes")


def _team(path: str) -> list[Member]:
    try:
        text = sys.stdin.read() if path == "-" else Path(path).read_text(encoding="utf-8")
        entries = json.loads(text)
    except (OSError, ValueError, RecursionError) as error:
        raise Refusal(
            f"cannot read the team from {path!r} ({type(error).__name__}); give a JSON list"
        ) from None
    if not isinstance(entries, list):
        raise Refusal(f"{path!r} does not hold a JSON list of members")
    try:
        members = team_members(entries)
    except Refused as refused:
        raise Refusal(f"{path!r}: {refused}") from None
    return [
        Member(one.name, one.admin, one.password or None, dict(one.experiments), dict(one.models))
        for one in members
    ]


def _parser() -> ArgumentParser:
    parser = ArgumentParser(description="Set up MLflow's administrator and team.")
    add_connection_arguments(parser)
    admin = parser.add_mutually_exclusive_group()
    admin.add_argument(
        "--keep-admin-password", action="store_true", help="leave the administrator's password"
    )
    admin.add_argument(
        "--new-admin-password-stdin", action="store_true", help="the new one is a line of standard input"
    )
    parser.add_argument(
        "--member",
        type=argument(mlflow_user_name),
        action="append",
        default=[],
        metavar="NAME",
        help="add a user (repeatable)",
    )
    parser.add_argument(
        "--admin-member",
        type=argument(mlflow_user_name),
        action="append",
        default=[],
        metavar="NAME",
        help="add an administrator",
    )
    parser.add_argument(
        "--team",
        type=filled,
        metavar="FILE",
        help="add the users of a JSON list like mlflowUsers; - reads it from stdin",
    )
    parser.add_argument(
        "--write-config", action="store_true", help="declare what was done in the stack's configuration"
    )
    return parser


def _run(args: Namespace, say: Say, warn: Say) -> dict[str, Any]:
    by_flags = bool(
        args.keep_admin_password
        or args.new_admin_password_stdin
        or args.member
        or args.admin_member
        or args.team
    )
    if not by_flags and not sys.stdin.isatty():
        raise Refusal(
            "there is no terminal to ask on: say what to do by --keep-admin-password or --new-admin-password-stdin, --member, "
            "--admin-member, --team, --write-config"
        )
    # All that can be wrong with the team is told before anything is changed. Standard input holds passwords first.
    team = _team(args.team) if args.team not in (None, "-") else []
    login = Login(args, warn)
    if args.write_config and login.stack_admin is None:
        raise Refusal(_not_the_stacks(login))
    setup = Setup(login.manager(say), say, warn)
    if login.stack_admin is not None:
        setup.stack, setup.stack_admin = Stack(args.stack), login.stack_admin
    if args.write_config and args.new_admin_password_stdin and not setup.by_stack_admin:
        raise Refusal(
            f"--write-config: the configuration holds the password of {setup.stack_admin}, and the one to change is that of "
            f"{setup.manager.client.username}; log in as {setup.stack_admin}, or leave one of the two options out"
        )
    try:
        users = _set_up(setup, args, team, by_flags)
    except BaseException:
        # Nobody could know them otherwise.
        for name, password in setup.generated.items():
            print(f"🔑 {name}: {password}", file=sys.stderr)
        if setup.new_admin_password is not None:
            warn(unknown_to_the_stack(args.stack))
        raise
    for name, password in setup.generated.items():
        say(f"🔑 {name}: {password}")
    if setup.generated:
        say("These passwords were generated and are shown once; hand each to its owner.")
    return {"users": [as_json(user) for user in users], "generated_passwords": setup.generated}


def _not_the_stacks(login: Login) -> str:
    known = login.outputs.get("mlflowUrl") or login.why_no_stack or "the stack has no MLflow"
    return (
        f"--write-config: {login.uri} is not the server of the stack {login.args.stack}; name the right ones by --tracking-uri (or "
        f"MLFLOW_TRACKING_URI) and --stack, or leave the option out. What is known of the stack's server: {known}"
    )


def _set_up(setup: Setup, args: Namespace, team: list[Member], by_flags: bool) -> list[User]:
    write_config = args.write_config
    if by_flags:
        new = read_line("the administrator's new password") if args.new_admin_password_stdin else None
        if args.team == "-":
            team = _team("-")
        for member in team if write_config else []:
            if member.password and (problem := _declarable(member.password)):
                raise Refusal(f"{member.name}: {problem}")
        if new is not None:
            setup.set_admin_password(new)
        members = [*map(Member, args.member), *(Member(name, is_admin=True) for name in args.admin_member)]
        for member in [*members, *team]:
            setup.add(member)
    else:
        _guide(setup)
        if setup.stack and not write_config:
            write_config = _yes(f"Write this into the configuration of stack {args.stack}?", default=True)
    if setup.stack and write_config and not args.dry_run:
        setup.write_config(setup.stack)
    elif setup.new_admin_password is not None:
        setup.warn(unknown_to_the_stack(args.stack))
    return setup.manager.list_users()


def main(arguments: Sequence[str] | None = None) -> int:
    args = _parser().parse_args(arguments)
    return report(args, lambda say, warn: _run(args, say, warn))


if __name__ == "__main__":
    end(main)
