"""Builds the parts of parts.py with the Go toolchain, each once: its folder is named after its inputs."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import subprocess
import tempfile
import time
from pathlib import Path

from airgap.toolchain.parts import PARTS, PULUMI, Part
from scripts.machine.lock import held
from scripts.machine.paths import cache_dir
from scripts.machine.problems import Problem
from scripts.machine.processes import Say, say

_SDK = "github.com/pulumi/pulumi/sdk/v3"
# Readonly: go.mod and go.sum are committed and alone decide what is built, without any checksum database.
_FLAGS = ("-mod=readonly", "-trimpath", "-buildvcs=false", "-p=2")
# An own go.work or a newer toolchain of the user's would make it another build.
_ENVIRONMENT = {"CGO_ENABLED": "0", "GOTOOLCHAIN": "local", "GOWORK": "off"}
# Where Go's own installer puts it; not on every PATH.
USUAL_GO = Path("/usr/local/go/bin/go")
_SHOWN_LINES = 15
_HEARTBEAT_SECONDS = 60


def ensure(name: str, say: Say = say) -> Path:
    """The path of the named binary, after building it where it is missing or its inputs changed."""
    if name not in PARTS:
        raise Problem(f"the toolchain has no part called {name!r}", f"name one of: {', '.join(PARTS)}")
    part = PARTS[name]
    go = _go(part)
    target = _folder() / f"{part.name}-{_key(part, go)}"
    if not target.is_dir():
        with held(_folder() / f"{part.name}.lock", part.name, say):
            # Another process may have built it while this one waited for the lock.
            if not target.is_dir():
                _build(part, go, target, say)
    return target / part.binary


def _build(part: Part, go: dict[str, str], target: Path, say: Say) -> None:
    """Build in a folder of its own and move that into place whole, so that what exists is complete."""
    say(
        f"{part.name} {part.version}: building with {go['GOVERSION']} from Go modules "
        f"(about {part.cold} on two cores, less when Go has parts of it in its cache)"
    )
    started = time.monotonic()
    for left in _folder().glob(f".{part.name}-build-*"):  # of builds that were killed; we hold the lock
        shutil.rmtree(left)
    work = Path(tempfile.mkdtemp(dir=_folder(), prefix=f".{part.name}-build-"))
    try:
        _compile(part, work / part.binary, say)
        for script in part.scripts:
            _copy_script(script, work)
        work.chmod(0o755)
        work.rename(target)
    finally:
        shutil.rmtree(work, ignore_errors=True)
    say(f"{part.name} {part.version}: built in {time.monotonic() - started:.0f} s")


def _compile(part: Part, output: Path, say: Say) -> None:
    command = [
        "nice",
        "-n",
        "10",
        _go_command(),
        "build",
        *_FLAGS,
        "-ldflags",
        _ldflags(part),
        "-o",
        str(output),
    ]
    log_path = _folder() / f"{part.name}.log"
    started = time.monotonic()
    with log_path.open("wb") as log:
        process = subprocess.Popen(
            [*command, part.package],
            cwd=part.module,
            env={**os.environ, **_ENVIRONMENT},
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            close_fds=False,  # see scripts.machine.lock
        )
        try:
            while True:
                try:
                    code = process.wait(timeout=_HEARTBEAT_SECONDS)
                    break
                except subprocess.TimeoutExpired:
                    say(f"{part.name}: still building, {(time.monotonic() - started) / 60:.0f} min so far")
        except BaseException:
            process.terminate()
            process.wait()
            raise
    if code:
        lines = log_path.read_text(encoding="utf-8", errors="replace").splitlines()[-_SHOWN_LINES:]
        shown = "\n".join(f"    {line}" for line in lines)
        raise Problem(
            f"building {part.name} {part.version} failed: `go build` ended with {code}, and its last lines "
            f"were\n{shown}",
            f"see {log_path}; where modules could not be fetched, check GOPROXY. Run it again once the "
            "cause is gone: it continues from what Go has in its cache",
        )


def _copy_script(script: str, folder: Path) -> None:
    """Copy a file of the Python SDK, of the CLI's version, out of Go's module cache."""
    command = [_go_command(), "mod", "download", "-json", _SDK]
    environment = {**os.environ, **_ENVIRONMENT, "GOFLAGS": "-mod=readonly"}
    done = subprocess.run(
        command, cwd=PULUMI.module, env=environment, capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise Problem(
            f"fetching the module {_SDK} failed: {(done.stderr or done.stdout).strip()}",
            "check GOPROXY and run it again",
        )
    source = Path(json.loads(done.stdout)["Dir"]) / script
    copy = folder / source.name
    shutil.copyfile(source, copy)
    copy.chmod(0o755)


def has_go() -> bool:
    """Whether Go is on this machine."""
    return shutil.which(_go_command()) is not None


def _go_command() -> str:
    return shutil.which("go") or (str(USUAL_GO) if USUAL_GO.is_file() else "go")


def _go(part: Part) -> dict[str, str]:
    """What Go says about itself, after checking that it can build the part."""
    needed = _needed(part)
    fix = f"install Go {needed} or newer (https://go.dev/dl) and put it on PATH"
    try:
        done = subprocess.run(
            [_go_command(), "env", "-json", "GOVERSION", "GOOS", "GOARCH"],
            env={**os.environ, **_ENVIRONMENT},
            capture_output=True,
            text=True,
            check=False,
        )
    except FileNotFoundError:
        raise Problem(f"{part.name} is built with Go, and there is no `go` on PATH", fix) from None
    if done.returncode:
        raise Problem(f"`go env` failed: {done.stderr.strip()}", fix)
    go: dict[str, str] = json.loads(done.stdout)
    if _numbers(go["GOVERSION"]) < _numbers(needed):
        raise Problem(f"{part.name} needs Go {needed}, and `go` on PATH is {go['GOVERSION']}", fix)
    return go


def _needed(part: Part) -> str:
    text = (part.module / "go.mod").read_text(encoding="utf-8")
    return re.findall(r"^go (\S+)$", text, re.MULTILINE)[0]


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(number) for number in re.findall(r"\d+", version)[:3])


def _key(part: Part, go: dict[str, str]) -> str:
    """A hash of everything that makes the binary what it is."""
    digest = hashlib.sha256()
    for path in sorted(path for path in part.module.rglob("*") if path.is_file()):
        digest.update(f"{path.relative_to(part.module)}\0".encode() + path.read_bytes() + b"\0")
    parts = [*_FLAGS, _ldflags(part), part.package, part.binary, *part.scripts]
    if part.scripts:  # they come from the module that the CLI's go.mod names
        parts.append((PULUMI.module / "go.mod").read_text(encoding="utf-8"))
    parts += [go["GOVERSION"], go["GOOS"], go["GOARCH"]]
    digest.update("\0".join(parts).encode())
    return digest.hexdigest()[:16]


def _ldflags(part: Part) -> str:
    return " ".join(["-s", "-w", *(f"-X {name}={value}" for name, value in part.variables)])


def _folder() -> Path:
    folder = cache_dir() / "toolchain"
    folder.mkdir(parents=True, exist_ok=True)
    return folder
