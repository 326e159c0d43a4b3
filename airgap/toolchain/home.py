"""A folder from which Pulumi runs: its commands in bin, and PULUMI_HOME, with the plugins, in pulumi."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path

from airgap.toolchain.builder import ensure, has_go
from airgap.toolchain.parts import LANGUAGE_PYTHON, PLUGINS, PULUMI
from scripts.machine.problems import Problem
from scripts.machine.processes import Say, say

STAMP = "toolchain.json"


def install(home: Path, say: Say = say) -> Path:
    """Lay out the commands and the plugins below `home`, where they are not yet; returns `home/bin`.

    What is there serves also where Go no longer is; with Go, it is built again when its inputs changed.
    """
    home = home.absolute()
    bin_dir = home / "bin"
    if not has_go() and _is_complete(home):
        return bin_dir
    binaries = {part.name: ensure(part.name, say) for part in (PULUMI, LANGUAGE_PYTHON, *PLUGINS)}
    commands = [binaries[PULUMI.name], binaries[LANGUAGE_PYTHON.name]]
    commands += [commands[1].parent / Path(script).name for script in LANGUAGE_PYTHON.scripts]
    plugins = {part: _plugin_path(home, part.name, part.version, part.binary) for part in PLUGINS}

    stamp = home / STAMP
    made_of = json.dumps({name: binary.parent.name for name, binary in binaries.items()}, indent=2) + "\n"
    files = [*(bin_dir / command.name for command in commands), *plugins.values()]
    if all(file.is_file() for file in files) and stamp.is_file() and stamp.read_text() == made_of:
        return bin_dir

    bin_dir.mkdir(parents=True, exist_ok=True)
    for command in commands:
        _place(command, bin_dir / command.name)
    for part in plugins:
        _install_plugin(home, part.name, part.version, binaries[part.name])
    stamp.write_text(made_of)
    say(f"pulumi {PULUMI.version} with its plugins is ready in {bin_dir}")
    return bin_dir


def _is_complete(home: Path) -> bool:
    """Whether all of it is there, of this checkout's versions."""
    files = [home / "bin" / part.binary for part in (PULUMI, LANGUAGE_PYTHON)]
    files += [_plugin_path(home, part.name, part.version, part.binary) for part in PLUGINS]
    return (home / STAMP).is_file() and all(file.is_file() for file in files)


def _place(source: Path, target: Path) -> None:
    """Make `target` the same file as `source`, or a copy; it works on when the cache is emptied."""
    fresh = target.with_name(f".{target.name}.new")
    fresh.unlink(missing_ok=True)
    try:
        os.link(source, fresh)
    except OSError:  # another file system
        shutil.copy2(source, fresh)
    fresh.replace(target)


def _plugin_path(home: Path, name: str, version: str, binary: str) -> Path:
    return home / "pulumi" / "plugins" / f"resource-{name}-{version}" / binary


def _install_plugin(home: Path, name: str, version: str, binary: Path) -> None:
    command = [str(home / "bin" / PULUMI.binary), "plugin", "install", "resource", name, version]
    done = subprocess.run(
        [*command, "--reinstall", "--file", str(binary)],
        env={
            **os.environ,
            "PULUMI_HOME": str(home / "pulumi"),
            "PULUMI_SKIP_UPDATE_CHECK": "true",
        },
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise Problem(
            f"`pulumi plugin install resource {name} {version}` failed: {(done.stderr or done.stdout).strip()}",
            f"remove {home} and run it again",
        )
