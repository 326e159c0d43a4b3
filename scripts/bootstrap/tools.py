"""Pulumi: the one on PATH if it serves, else the official release, else one built from Go modules."""

from __future__ import annotations

import os
import re
import shutil
import tempfile
import urllib.error
import urllib.request
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from airgap import toolchain
from scripts.machine.paths import ROOT, cache_dir
from scripts.machine.problems import Problem
from scripts.machine.processes import Say, ask

SWITCH = "MLOPS_STACK_TOOLS"
WAYS = ("path", "official", "build")
OLDEST, TOO_NEW = (3, 200), (4,)
SITE = "https://get.pulumi.com/"
_PROBE_SECONDS = 5
_ASK_SECONDS = 60
_LANGUAGE_HOST = "pulumi-language-python"
# Runs in the project's environment: the SDK installs the release that it belongs to.
_OFFICIAL = """
import sys
from pulumi.automation import PulumiCommand
PulumiCommand.install(root=sys.argv[1])
"""


@dataclass(frozen=True)
class Tools:
    """A Pulumi that serves: the folder of its command, and what it needs in the environment."""

    folder: Path
    variables: Mapping[str, str]
    why: str

    @property
    def pulumi(self) -> str:
        return str(self.folder / "pulumi")


def ensure(python: Path, say: Say) -> Tools:
    """The Pulumi to use, after installing or building it if need be. `python` is the project's environment's."""
    tools = _choose(python, say)
    say(f"Pulumi: {tools.pulumi} ({tools.why})")
    return tools


def find() -> Tools:
    """The Pulumi that `ensure` chose or would choose, without installing anything."""
    way = _forced()
    on_path = _on_path()[0] if way in ("", "path") else None
    if on_path and (way or _has_plugins()):
        return on_path
    for name, look in (("official", _official), ("build", _built)):
        if way in ("", name) and (candidate := look()):
            return candidate
    if on_path:
        return on_path
    raise Problem("there is no pulumi that serves on this machine yet", "make up, which gets one")


def _choose(python: Path, say: Say) -> Tools:
    way = _forced()
    on_path, unfit = _on_path() if way in ("", "path") else (None, f"{SWITCH}={way}")
    if on_path and (way or _has_plugins() or _site_answers()):
        return on_path
    if on_path:
        unfit = "the one on PATH has no plugins, and their download site does not answer"
    if way == "path":
        raise Problem(f"{SWITCH}=path, and {unfit}", f"install Pulumi 3.200 or newer, or unset {SWITCH}")
    # What was chosen once stays, so that nothing has to be asked again.
    if way in ("", "official") and (official := _official()):
        return official
    if way == "" and _built():
        return _build(f"{unfit}; built here before", say)
    if way == "official" or (way == "" and _site_answers()):
        try:
            return _install_official(python, unfit, say)
        except Problem as problem:
            if way == "official":
                raise
            say(f"Pulumi: {problem.message}; building it instead")
            return _build(f"{unfit}; the official installer failed", say)
    return _build((way and unfit) or f"{unfit}; the official download site does not answer", say)


def _forced() -> str:
    way = os.environ.get(SWITCH, "")
    if way and way not in WAYS:
        raise Problem(f"{SWITCH}={way} is no way to get Pulumi", f"use one of {', '.join(WAYS)}, or unset it")
    return way


def _on_path() -> tuple[Tools | None, str]:
    """The pulumi on PATH, or why it does not serve."""
    found = shutil.which("pulumi")
    if not found:
        return None, "there is no pulumi on PATH"
    answer = ask([found, "version"], environment=_quiet(), timeout=_ASK_SECONDS)
    numbers = tuple(int(number) for number in re.findall(r"\d+", answer.out)[:3])
    if answer.code or not numbers:
        return None, f"{found} does not start"
    version = answer.out.strip()
    if not OLDEST <= numbers < TOO_NEW:
        return None, f"{found} is {version}, and 3.200 or newer, below 4, is needed"
    beside = Path(found).resolve().with_name(_LANGUAGE_HOST)
    if not (beside.is_file() or shutil.which(_LANGUAGE_HOST)):
        return None, f"{found} has no {_LANGUAGE_HOST} beside it"
    return Tools(Path(found).parent, {}, f"on PATH, {version}"), ""


def _quiet() -> dict[str, str]:
    return {**os.environ, "PULUMI_SKIP_UPDATE_CHECK": "true"}


def _has_plugins() -> bool:
    """Whether the plugins that the Python SDKs ask for are installed already."""
    home = Path(os.environ.get("PULUMI_HOME") or "~/.pulumi").expanduser()
    return all(
        (home / "plugins" / f"resource-{name}-v{_pin(f'pulumi-{name}')}").is_dir()
        for name in ("docker", "random")
    )


def _pin(package: str) -> str:
    """The version of a package in requirements.txt."""
    requirements = ROOT / "requirements.txt"
    text = requirements.read_text(encoding="utf-8") if requirements.is_file() else ""
    match = re.search(rf"^{re.escape(package)}==([\w.]+)", text, re.MULTILINE)
    if match is None:
        raise Problem(f"{requirements} does not pin {package}", f"write {package}==VERSION there")
    return match[1]


def _site_answers() -> bool:
    try:
        with urllib.request.urlopen(urllib.request.Request(SITE, method="HEAD"), timeout=_PROBE_SECONDS):
            return True
    except urllib.error.HTTPError:
        return True
    except (OSError, ValueError):
        return False


def _official_root() -> Path:
    return cache_dir() / "pulumi" / _pin("pulumi")


def _official() -> Tools | None:
    folder = _official_root() / "bin"
    if not (folder / "pulumi").is_file():
        return None
    return Tools(folder, {}, f"official release {_official_root().name}, installed before")


def _install_official(python: Path, unfit: str, say: Say) -> Tools:
    root = _official_root()
    say(f"Pulumi: installing the official release {root.name} into {root} ({unfit})")
    root.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=root.parent, prefix=".new-") as fresh:
        answer = ask([str(python), "-c", _OFFICIAL, fresh], environment=_quiet())
        folder = Path(fresh) / "bin"
        if answer.code or not (folder / _LANGUAGE_HOST).is_file():
            raise Problem(
                f"the official installer of Pulumi {root.name} failed: {answer.reason}",
                f"run it again, install Pulumi by hand, or set {SWITCH}=build",
            )
        # Whole or not at all: what is there is complete.
        shutil.rmtree(root, ignore_errors=True)
        root.mkdir()
        folder.rename(root / "bin")
    return Tools(root / "bin", {}, f"official release {root.name}; {unfit}")


def _built_home() -> Path:
    return cache_dir() / "airgap"


def _built() -> Tools | None:
    home = _built_home()
    if not (home / toolchain.STAMP).is_file():  # written last
        return None
    return _tools_of(home, "built here before")


def _build(why: str, say: Say) -> Tools:
    home = _built_home()
    if not (home / toolchain.STAMP).is_file():
        say(f"Pulumi: building it from Go modules, once ({why})")
    toolchain.install(home, say)
    return _tools_of(home, f"built from Go modules: {why}")


def _tools_of(home: Path, why: str) -> Tools:
    variables = {
        "PULUMI_HOME": str(home / "pulumi"),
        # What is not built is nowhere to be had: say so at once, do not try.
        "PULUMI_DISABLE_AUTOMATIC_PLUGIN_ACQUISITION": "true",
    }
    return Tools(home / "bin", variables, why)
