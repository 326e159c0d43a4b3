"""The Pulumi stack: its passphrase, its backend, its configuration and its outputs."""

from __future__ import annotations

import json
import os
import re
import secrets
import shlex
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

from scripts.bootstrap import engine
from scripts.bootstrap import tools as pulumi_tools
from scripts.bootstrap.tools import Tools
from scripts.bootstrap.venv import FOLDER as VENV
from scripts.machine.paths import ROOT
from scripts.machine.problems import Problem
from scripts.machine.processes import Answer, Say, ask

PROJECT = "mlops-stack"
STATE = ".pulumi-state"
PASSPHRASE = ".pulumi-passphrase"


def environment(tools: Tools, root: Path = ROOT) -> dict[str, str]:
    """The environment in which `pulumi` works for this checkout's stacks."""
    variables = tool_environment(tools, root)
    if not _has_own_passphrase():
        variables["PULUMI_CONFIG_PASSPHRASE_FILE"] = str(root / PASSPHRASE)
    return variables


def tool_environment(tools: Tools, root: Path = ROOT) -> dict[str, str]:
    """The same without the passphrase, for what has stacks of its own."""
    # The language host of the built Pulumi takes the first Python on PATH.
    first = (str(tools.folder), str(root / VENV / "bin"))
    rest = [folder for folder in os.environ.get("PATH", os.defpath).split(os.pathsep) if folder not in first]
    return {
        # The classic builder sees base images that exist on the engine only; a builder in a container of its own does not.
        "DOCKER_BUILDKIT": "0",
        **os.environ,
        **engine.variables(),
        **tools.variables,
        "PATH": os.pathsep.join([*first, *rest]),
        "VIRTUAL_ENV": str(root / VENV),
        "PULUMI_SKIP_UPDATE_CHECK": "true",
    }


def resources_of(exported: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """The resources of an exported state."""
    return (exported.get("deployment") or {}).get("resources") or []


def with_resources(exported: Mapping[str, Any], kept: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The same exported state with these resources alone."""
    return {**exported, "deployment": {**exported["deployment"], "resources": kept}}


def outputs(stack: str = "dev") -> dict[str, Any]:
    """The outputs of a deployed stack, secret ones readable."""
    return Stack(stack).outputs()


class Stack:
    """A stack of this project. Values of secrets go to `pulumi` by standard input, where no process list shows them."""

    def __init__(self, name: str = "dev", tools: Tools | None = None, root: Path = ROOT) -> None:
        self.name = name
        self.root = root
        if tools is not None:
            self.tools = tools

    @cached_property
    def tools(self) -> Tools:
        return pulumi_tools.find()

    @property
    def config_file(self) -> Path:
        return self.root / f"Pulumi.{self.name}.yaml"

    @property
    def settings(self) -> str:
        """The text of its own settings, secrets encrypted; empty where there is no such file."""
        return self.config_file.read_text(encoding="utf-8") if self.config_file.is_file() else ""

    def write_settings(self, text: str) -> None:
        """Put this text in place of its own settings, all of it or nothing."""
        fresh = self.config_file.with_name(f"{self.config_file.name}.new")
        fresh.write_text(text, encoding="utf-8")
        fresh.replace(self.config_file)

    @property
    def environment(self) -> dict[str, str]:
        return environment(self.tools, self.root)

    def command(self, *arguments: str) -> list[str]:
        """A `pulumi` command line about this stack."""
        return [self.tools.pulumi, *arguments, "--stack", self.name]

    def ensure(self, say: Say, *, make: bool = True) -> None:
        """Make the passphrase, the state's folder and the stack where they are missing, and select the stack.

        `make`: whether a stack of this name may be made.
        """
        self._check_name()
        self._ensure_passphrase(say)
        if (folder := state_folder(self.root)) is not None:
            folder.mkdir(parents=True, exist_ok=True)
        selected = self._ask("stack", "select")
        if _is_missing(selected):
            if not make:
                raise self._missing()
            made = self._ask("stack", "init")
            if made.code:
                raise self._problem(f"making the stack {self.name} failed", made)
            say(f"Stack: made {self.name}")
            selected = self._ask("stack", "select")
        if selected.code:
            raise self._problem(f"selecting the stack {self.name} failed", selected)

    def exported(self) -> dict[str, Any]:
        """The state as Pulumi exports it, secrets encrypted."""
        exported: dict[str, Any] = json.loads(self._run("stack", "export").out)
        return exported

    def export(self) -> dict[str, Any]:
        """The state's `deployment`, secrets encrypted."""
        return self.exported().get("deployment") or {}

    def import_(self, exported: Mapping[str, Any]) -> None:
        """Put such an export in place of the state."""
        self._run("stack", "import", text=json.dumps(exported))

    def forget(self, urn: str) -> None:
        """Take a resource and all that depends on it out of the state, and touch nothing else."""
        self._run("state", "delete", urn, "--target-dependents", "--force", "--yes")

    def outputs(self) -> dict[str, Any]:
        """The outputs, secret ones readable."""
        answer = self._run("stack", "output", "--json", "--show-secrets")
        found: dict[str, Any] = json.loads(answer.out)
        if not found:
            raise Problem(f"the stack {self.name} is not deployed", self.make("up"))
        return found

    def config(self) -> dict[str, Any]:
        """Settings that are no secrets, by their name without the project's; defaults of Pulumi.yaml included."""
        answer = self._run("config", "--json")
        entries: dict[str, dict[str, Any]] = json.loads(answer.out)
        return {
            key.removeprefix(f"{PROJECT}:"): entry.get("objectValue", entry["value"])
            for key, entry in entries.items()
            if "value" in entry
        }

    def sets(self, key: str) -> bool:
        """Whether the stack's own settings have the key, whatever Pulumi.yaml's default is."""
        line = rf"^\s+[\"']?({PROJECT}:)?{re.escape(key)}[\"']?:"
        return re.search(line, self.settings, re.MULTILINE) is not None

    def get_config(self, path: str) -> Any:
        """A setting, secrets in it readable; None where there is none."""
        answer = self._ask("config", "get", f"{PROJECT}:{path}", "--json", *_path_flag(path))
        if answer.code:
            if "not found" in answer.err:
                return None
            raise self._problem(f"reading the setting {path} failed", answer)
        entry = json.loads(answer.out)
        return entry.get("objectValue", entry.get("value"))

    def set_config(self, path: str, value: str, *, secret: bool = False) -> None:
        """Write a setting; below a list or an object, "true" and "false" become booleans and all else text."""
        flags = [*_path_flag(path)]
        if flags and not secret and value not in ("true", "false"):
            flags += ["--type", "string"]
        if flags and secret and not is_text_in_list(value):
            raise Problem(
                f"the secret for {path} consists of digits only, or is true or false", "choose another one"
            )
        text = None
        if secret:
            flags.append("--secret")
            text = value
        command = self.command("config", "set", f"{PROJECT}:{path}", "--non-interactive", *flags)
        if not secret:
            command += ["--", value]
        answer = ask(command, environment=self.environment, cwd=self.root, text=text)
        if answer.code:
            raise self._problem(f"writing the setting {path} failed", answer)

    def make(self, target: str, *arguments: str) -> str:
        """The `make` command that a person gives for this stack."""
        words = ["make", target, *([] if self.name == "dev" else [f"STACK={self.name}"])]
        if arguments:
            # The person's shell takes the outer quotes away, and make's own shell the inner ones.
            text = shlex.join(arguments)
            readable = "'" in text and not set(text) & set('"$`\\')
            words.append(f'ARGS="{text}"' if readable else f"ARGS={shlex.quote(text)}")
        return " ".join(words)

    def _ask(self, *arguments: str, text: str | None = None) -> Answer:
        command = self.command(*arguments, "--non-interactive")
        return ask(command, environment=self.environment, cwd=self.root, text=text)

    def _run(self, *arguments: str, text: str | None = None) -> Answer:
        answer = self._ask(*arguments, text=text)
        if _is_missing(answer):
            raise self._missing()
        if answer.code:
            raise self._problem(f"`pulumi {' '.join(arguments)}` failed for the stack {self.name}", answer)
        return answer

    def _missing(self) -> Problem:
        return Problem(
            f"there is no stack called {self.name}",
            f"`pulumi stack ls` lists those that there are; {self.make('up')} makes one; where its state was lost: "
            "docs/operations.md",
        )

    def _problem(self, what: str, answer: Answer) -> Problem:
        if "incorrect passphrase" in answer.err:
            return Problem(
                f"{what}: the passphrase does not fit",
                f"put the {PASSPHRASE} back with which {self.config_file.name} was encrypted, or set PULUMI_CONFIG_PASSPHRASE",
            )
        return Problem(
            f"{what}: {answer.reason}", f"put right what it says and run it again ({self.make('up')})"
        )

    def _check_name(self) -> None:
        if not re.fullmatch(r"[A-Za-z0-9_.-]{1,100}", self.name):
            raise Problem(
                f"{self.name!r} cannot be a stack's name", "use letters, digits, and any of _ . - in STACK"
            )

    def _ensure_passphrase(self, say: Say) -> None:
        file = self.root / PASSPHRASE
        if _has_own_passphrase() or (file.is_file() and file.stat().st_size):
            return
        if needs := self._encrypted_with_it():
            raise Problem(
                f"{needs} is encrypted with a passphrase, and {PASSPHRASE} is missing",
                f"put {file} back from a backup, or set PULUMI_CONFIG_PASSPHRASE. Without the passphrase the secrets in it are "
                "lost: docs/operations.md tells how to start anew",
            )
        file.unlink(missing_ok=True)  # an empty one, of a run that was killed
        # Exclusive: of two first runs at a time, the second one uses the passphrase of the first.
        try:
            descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        except FileExistsError:
            return
        with os.fdopen(descriptor, "w", encoding="ascii") as stream:
            stream.write(secrets.token_urlsafe(32) + "\n")
        say(f"Passphrase: made {file.name}, which decrypts the stack's secrets: keep a copy in a safe place")

    def _encrypted_with_it(self) -> str:
        """What cannot be read without the passphrase that was there before; empty where nothing is."""
        folder = state_folder(self.root)
        if folder and any((folder / ".pulumi" / "stacks").rglob("*.json")):
            return f"the state in {folder}"
        encrypted = re.search(r"^encryptionsalt:", self.settings, re.MULTILINE)
        return self.config_file.name if encrypted else ""


def is_text_in_list(secret: str) -> bool:
    """Whether a secret below a list or an object stays what it is: Pulumi makes numbers and booleans of some."""
    return re.fullmatch(r"true|false|[+-]?\d+", secret) is None


def state_folder(root: Path = ROOT, variables: Mapping[str, str] | None = None) -> Path | None:
    """The folder of a state kept in files; None where PULUMI_BACKEND_URL names another kind of backend."""
    url = (os.environ if variables is None else variables).get("PULUMI_BACKEND_URL", f"file://./{STATE}")
    if not url.startswith("file://"):
        return None
    path = Path(url.removeprefix("file://").partition("?")[0]).expanduser()
    return path if path.is_absolute() else root / path


def _is_missing(answer: Answer) -> bool:
    """Whether that is what Pulumi says of the stack."""
    return bool(answer.code) and "no stack named" in answer.err


def _has_own_passphrase() -> bool:
    # An empty passphrase is one, too.
    return "PULUMI_CONFIG_PASSPHRASE" in os.environ or bool(os.environ.get("PULUMI_CONFIG_PASSPHRASE_FILE"))


def _path_flag(path: str) -> list[str]:
    return ["--path"] if re.search(r"[.\[]", path) else []
