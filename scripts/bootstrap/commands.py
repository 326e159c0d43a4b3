"""The commands that `make` offers."""

from __future__ import annotations

import os
import shlex
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from airgap import images as airgap
from scripts.bootstrap import backup, engine, images, leftovers, locks, power, restore, stack, team, venv
from scripts.bootstrap import tools as pulumi_tools
from scripts.bootstrap.stack import Stack
from scripts.bootstrap.tools import Tools
from scripts.machine.paths import ROOT
from scripts.machine.problems import Problem
from scripts.machine.processes import INTERRUPTED, foreground, interruptible, say

DELETE_DATA = "--delete-data"
# Docker's provider waits two seconds for each network and volume that it removes: let all of them wait at the same time.
DESTROY = ("destroy", "--yes", "--skip-preview", "--parallel", "32")
# make's own, and another environment's: what is started here must not take them for its own.
_NOT_INHERITED = (
    "MAKEFLAGS",
    "MAKELEVEL",
    "MAKEOVERRIDES",
    "MFLAGS",
    "STACK",
    "ARGS",
    "VIRTUAL_ENV",
    "PYTHONHOME",
)
# Tests mostly wait for containers. A file's tests share a deployment. Each process has up to eight networks at a time, and
# Docker room for thirty.
_AT_A_TIME = ("--numprocesses", "auto", "--maxprocesses", "3", "--dist", "loadfile")
# `make stop ARGS=--help` must not stop anything.
_TAKE_NOTHING = ("stop", "start", "env", "credentials", "client-env", "lint", "format", "help")
_SHOWN_IN_ENV = (
    "PATH",
    "VIRTUAL_ENV",
    "PULUMI_HOME",
    "PULUMI_DISABLE_AUTOMATIC_PLUGIN_ACQUISITION",
    "PULUMI_SKIP_UPDATE_CHECK",
    "PULUMI_CONFIG_PASSPHRASE_FILE",
    "PULUMI_STACK",
    "DOCKER_BUILDKIT",
    "DOCKER_HOST",
)


@dataclass
class Call:
    """One command's surroundings: the stack's name and the arguments given."""

    name: str
    arguments: list[str] = field(default_factory=list)

    def take(self, flag: str) -> bool:
        """Whether the flag was given; it is no longer among the arguments."""
        given = flag in self.arguments
        self.arguments = [argument for argument in self.arguments if argument != flag]
        return given


def _stack(call: Call, *, make: bool = True) -> Stack:
    """The stack with a Pulumi that serves, everything made that was missing; also the stack itself, unless `make` is false."""
    tools = pulumi_tools.ensure(venv.ensure(say), say)
    found = Stack(call.name, tools)
    found.ensure(say, make=make)
    return found


def _pulumi(found: Stack, *arguments: str, variables: Mapping[str, str] | None = None) -> int:
    environment = {**found.environment, **(variables or {})}
    return foreground(found.command(*arguments), environment=environment, cwd=ROOT)


def up(call: Call) -> int:
    """Deploy, or bring up to date: from nothing to a running stack"""
    double = call.take(images.DOUBLE)
    engine.ensure(say)
    found = _stack(call)
    return _deploy(found, call.arguments, double=double) or _greet(found)


def _deploy(found: Stack, arguments: Sequence[str] = (), *, double: bool = False) -> int:
    images.prepare(found, venv.python_of(), say, double=double)
    leftovers.clear(found, say)
    go = ("up", "--yes", "--skip-preview", "--refresh", "--suppress-outputs", *arguments)
    if not team.is_large(found):
        code = _pulumi(found, *go)
    else:
        say("Team: a large one, so everything else first")
        code = _pulumi(found, *go, *team.ALL_BUT_ACCOUNTS) or _pulumi(found, *go, variables=team.WRITE_ONCE)
    if code not in (0, INTERRUPTED):
        say(
            f"\nerror: `pulumi up` ended with {code}, see above\n  fix: put right what it says; {found.make('up')} goes on from there"
        )
    return code


def _greet(found: Stack) -> int:
    print("\n".join(welcome(found.outputs(), found)))
    return 0


def welcome(outputs: Mapping[str, Any], found: Stack) -> list[str]:
    """What to open and how to log in; no passwords."""
    lines = [""]
    running = outputs["containers"]
    if "mlflow-server" in running:
        lines.append(f"MLflow   {outputs['mlflowUrl']}   log in as {outputs['mlflowAdminUsername']}")
    if "langfuse-web" in running and images.is_double(outputs["langfuseVersion"]):
        lines.append(f"a DOUBLE of Langfuse, not Langfuse, at {outputs['langfuseUrl']}: its API, no pages")
    elif "langfuse-web" in running:
        lines.append(f"Langfuse {outputs['langfuseUrl']}   log in as {outputs['langfuseUserEmail']}")
    make = found.make
    lines.append(
        f"\n{make('credentials')} shows passwords and keys, {make('client-env')} what programs need, "
        f"{make('status')} whether all works."
    )
    return lines


def preview(call: Call) -> int:
    """Show what `up` would change"""
    engine.ensure(say)
    return _pulumi(_stack(call), "preview", *call.arguments)


def refresh(call: Call) -> int:
    """Take over into the state what changed on the engine"""
    engine.ensure(say)
    found = _stack(call, make=False)
    leftovers.clear(found, say)
    return _pulumi(found, "refresh", "--yes", "--skip-preview", "--suppress-outputs", *call.arguments)


def stop(call: Call) -> int:
    """Stop the containers; data and containers stay"""
    found = Stack(call.name)
    with locks.held(found, say):
        power.stop(found, say)
    return 0


def start(call: Call) -> int:
    """Start the containers again, stores first"""
    engine.ensure(say)
    found = Stack(call.name)
    with locks.held(found, say):
        power.start(found, say)
    return 0


def destroy(call: Call) -> int:
    """Remove the stack, keep its data; ARGS=--delete-data removes that too"""
    delete_data = call.take(DELETE_DATA)
    engine.ensure(say)
    found = _stack(call, make=False)
    resources = leftovers.clear(found, say, removing=True)
    team.forget(found, resources, say)
    if delete_data:
        code = _pulumi(found, "state", "unprotect", "--all", "--yes")
        return code or _pulumi(found, *DESTROY, "--suppress-outputs", *call.arguments)
    code = _pulumi(found, *DESTROY, "--suppress-outputs", "--exclude-protected", *call.arguments)
    kept = [item for item in found.export().get("resources") or [] if item.get("protect")]
    if code == 0 and kept:
        volumes = sorted(item["id"] for item in kept if item["type"] == "docker:index/volume:Volume")
        say(
            f"Kept, with the secrets that unlock them: {', '.join(volumes)}\n"
            f"{found.make('up')} goes on with them; {found.make('destroy', DELETE_DATA)} removes them for good"
        )
    return code


def save(call: Call) -> int:
    """Back up data, secrets and settings while it runs: make backup [ARGS=FOLDER]"""
    engine.ensure(say)
    into = _only(call, "at most one folder, in which the backup's own is made") or backup.FOLDER
    found = _stack(call, make=False)
    with locks.held(found, say):
        backup.save(found, into, say)
    return 0


def put_back(call: Call) -> int:
    """Bring a backup back, here or on a new machine: make restore ARGS=FOLDER"""
    replace, keep_data = call.take(restore.REPLACE), call.take(restore.KEEP_DATA)
    folder = _only(call, "the folder of one backup") or backup.FOLDER
    chosen = backup.read(folder, Stack(call.name))
    engine.ensure(say)
    restore.take_settings(chosen, Stack(call.name), say)
    found = _stack(call)
    restore.take_secrets(chosen, found, replace=replace, keep_data=keep_data)
    if code := _deploy(found):
        return code
    if not keep_data:
        with locks.held(found, say):
            restore.put_back(chosen, found, say)
        # The accounts in the backup are those of its day.
        team.forget_experiment_permissions(found)
        code = _deploy(found)
    return code or _greet(found)


def _only(call: Call, what: str) -> Path | None:
    if len(call.arguments) > 1 or any(argument.startswith("-") for argument in call.arguments):
        raise Problem(
            f"ARGS={shlex.join(call.arguments)!r} is not what this command takes: {what}",
            "make help tells more",
        )
    return Path(call.arguments[0]).expanduser().absolute() if call.arguments else None


def status(call: Call) -> int:
    """Check every service by what it is for"""
    return _script("scripts.validate_services", "--stack", call.name, *call.arguments)


def env(call: Call) -> int:
    """Print what makes plain `pulumi` work in a shell: eval "$(make -s env)\""""
    variables = {**_stack(call).environment, "PULUMI_STACK": call.name}
    for name in _SHOWN_IN_ENV:
        if variables.get(name, "") != os.environ.get(name, ""):
            print(f"export {name}={shlex.quote(variables[name])}")
    return 0


def credentials(call: Call) -> int:
    """Print user names, passwords and keys"""
    found = stack.outputs(call.name)
    shown = {
        "MLflow": ("mlflowUrl", "mlflowAdminUsername", "mlflowAdminPassword"),
        "Langfuse": (
            "langfuseUrl",
            "langfuseUserEmail",
            "langfuseUserPassword",
            "langfusePublicKey",
            "langfuseSecretKey",
        ),
    }
    for product, keys in shown.items():
        for key in keys:
            if key in found:
                print(f"{product:9} {key.removeprefix(product.lower()):15} {found[key]}")
    for name, password in (found.get("mlflowUserPasswords") or {}).items():
        print(f"{'MLflow':9} {'user ' + name:15} {password}")
    return 0


def client_env(call: Call) -> int:
    """Print the variables that clients need, passwords included (dotenv)"""
    print(stack.outputs(call.name)["clientEnv"], end="")
    return 0


def users(call: Call) -> int:
    """Manage MLflow's users: make users ARGS="list-users\""""
    return _script("scripts.manage_mlflow_users", *_for_stack(call))


def setup(call: Call) -> int:
    """Set up MLflow's administrator and team for the first time"""
    return _script("scripts.setup_mlflow_auth", *_for_stack(call))


def _for_stack(call: Call) -> list[str]:
    if call.name == "dev" or "--stack" in call.arguments:
        return call.arguments
    return [*call.arguments, "--stack", call.name]


def test(call: Call) -> int:
    """Run every check and test; needs an engine"""
    python = venv.ensure(say, develop=True)
    code = _checks()
    if code:
        return code
    engine.ensure(say)
    tools = pulumi_tools.ensure(python, say)
    airgap.ensure(airgap.RECIPES, say)
    venv.ensure_clients(say)
    return _pytest(tools, [*_AT_A_TIME, *call.arguments])


def test_unit(call: Call) -> int:
    """Run the tests that need no engine"""
    python = venv.ensure(say, develop=True)
    return foreground([str(python), "-m", "pytest", "tests/unit", *call.arguments], cwd=ROOT)


def test_faults(call: Call) -> int:
    """Kill and take away parts, often: make test-faults ARGS="--kills 20 --seed 7\""""
    python = venv.ensure(say, develop=True)
    engine.ensure(say)
    often = ("--thorough", "--kills", "20", "--away", "120")
    return _pytest(pulumi_tools.ensure(python, say), ["tests/faults", "-s", *often, *call.arguments])


def _pytest(tools: Tools, arguments: Sequence[str]) -> int:
    command = [str(venv.python_of()), "-m", "pytest", *arguments]
    return foreground(command, environment=stack.tool_environment(tools), cwd=ROOT)


def lint(call: Call) -> int:
    """Check style, types and who imports whom"""
    venv.ensure(say, develop=True)
    return _checks()


def _checks() -> int:
    # All of them, so that one run shows everything.
    return max(
        _tool("ruff", "check", "."),
        _tool("ruff", "format", "--check", "."),
        _tool("mypy"),
        _tool("lint-imports", "--no-logo", "--no-cache"),
    )


def format_(call: Call) -> int:
    """Bring the sources into form"""
    venv.ensure(say, develop=True)
    return max(_tool("ruff", "check", "--fix", "."), _tool("ruff", "format", "."))


def _tool(name: str, *arguments: str) -> int:
    return foreground([str(venv.python_of().with_name(name)), *arguments], cwd=ROOT)


def bench(call: Call) -> int:
    """Measure: make bench ARGS=--help"""
    python = venv.ensure(say, develop=True)
    engine.ensure(say)
    tools = pulumi_tools.ensure(python, say)
    return foreground(
        [str(python), "-m", "benchmarks", *call.arguments],
        environment=stack.tool_environment(tools),
        cwd=ROOT,
    )


def pin_images(call: Call) -> int:
    """Record today's digests of the images"""
    return _script("scripts.pin_images", *call.arguments)


def _script(module: str, *arguments: str) -> int:
    return foreground([str(venv.ensure(say)), "-m", module, *arguments], cwd=ROOT)


def help_(call: Call) -> int:
    """Show this"""
    print('make COMMAND [STACK=dev] [ARGS="..."]\n')
    for name, command in COMMANDS.items():
        print(f"  {name:12} {command.__doc__}")
    print(
        f"\n  make up ARGS={images.DOUBLE} deploys a double where Langfuse's images cannot be had (docs/airgap.md)"
    )
    return 0


COMMANDS: Mapping[str, Callable[[Call], int]] = {
    "up": up,
    "preview": preview,
    "refresh": refresh,
    "stop": stop,
    "start": start,
    "destroy": destroy,
    "backup": save,
    "restore": put_back,
    "status": status,
    "env": env,
    "credentials": credentials,
    "client-env": client_env,
    "users": users,
    "setup": setup,
    "test": test,
    "test-unit": test_unit,
    "test-faults": test_faults,
    "lint": lint,
    "format": format_,
    "bench": bench,
    "pin-images": pin_images,
    "help": help_,
}


def main(arguments: Sequence[str]) -> int:
    """Run a command; its exit code."""
    name, *rest = arguments or ["help"]
    call = Call(os.environ.get("STACK") or "dev", rest)
    for variable in _NOT_INHERITED:
        os.environ.pop(variable, None)
    if name not in COMMANDS:
        return _failed(f"there is no command {name!r}", f"use one of {', '.join(COMMANDS)}")
    if rest and name in _TAKE_NOTHING:
        return _failed(
            f"make {name} takes no ARGS, and was given {rest[0]!r}", "leave them out; make help tells more"
        )
    # Not with the arguments: one of them may be a password.
    again = "the same command" if rest else f"`{Stack(call.name).make(name)}`"
    try:
        with interruptible():
            code = COMMANDS[name](call)
    except Problem as problem:
        return _failed(problem.message, problem.fix)
    except BrokenPipeError:
        raise
    except OSError as error:
        return _failed(str(error), f"put that right; {again} goes on from here")
    except KeyboardInterrupt:
        code = INTERRUPTED
    if code == INTERRUPTED:
        say(f"interrupted; {again} goes on from here")
    return code


def _failed(message: str, fix: str) -> int:
    say(f"error: {message}\n  fix: {fix}")
    return 1
