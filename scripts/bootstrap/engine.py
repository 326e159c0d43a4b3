"""The Docker engine: the one that answers; else, where that is ours to do, one that is installed and started here."""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from functools import lru_cache
from pathlib import Path

from scripts.machine import debian
from scripts.machine.paths import cache_dir
from scripts.machine.problems import Problem
from scripts.machine.processes import Answer, Say, ask

SWITCH = "MLOPS_STACK_INSTALL_ENGINE"
_PACKAGES = ("docker.io", "iptables")
_ASK_SECONDS = 20
_START_SECONDS = 90
_POLL_SECONDS = 0.3
_DEFAULT_HOST = "unix:///var/run/docker.sock"
# Left by an engine whose machine stopped; an engine believes them as long as any process has the number.
_PID_FILES = {
    Path("/var/run/docker.pid"): "dockerd",
    Path("/var/run/docker/containerd/containerd.pid"): "containerd",
}


def ensure(say: Say) -> None:
    """Return when an engine answers the `docker` command, after installing and starting one if need be."""
    answer = _version()
    if answer.code == 0:
        say(f"Docker: the engine at {host()} answers (version {answer.out.strip()})")
        return
    _refuse_where_not_ours(answer)
    missing = [command for command in ("docker", "dockerd", "iptables") if not shutil.which(command)]
    if missing:
        say(
            f"Docker: no engine answers and {', '.join(missing)} is missing; {SWITCH}=no would forbid installing"
        )
        debian.install(_PACKAGES, say)
    if _version().code:  # installing it may have started it
        _start(say)
    say(f"Docker: the engine at {host()} answers (version {_version().out.strip()})")


def host() -> str:
    """Where the `docker` command looks for the engine: DOCKER_HOST, or what its context says."""
    variables = ("PATH", "HOME", "DOCKER_CONFIG", "DOCKER_CONTEXT")
    return os.environ.get("DOCKER_HOST") or _context_host(*map(os.environ.get, variables))


@lru_cache
def _context_host(*_depends_on: str | None) -> str:
    answer = ask(
        ["docker", "context", "inspect", "--format", "{{.Endpoints.docker.Host}}"], timeout=_ASK_SECONDS
    )
    return answer.out.strip() or _DEFAULT_HOST


def variables() -> dict[str, str]:
    """What leads Docker's provider to the same engine: it knows DOCKER_HOST, and no contexts."""
    found = host()
    return {} if found == _DEFAULT_HOST else {"DOCKER_HOST": found}


def docker(
    *arguments: str,
    fix: str = "check the Docker engine: docker info",
    timeout: float | None = None,
    source: int = subprocess.DEVNULL,
    sink: int = subprocess.PIPE,
) -> str:
    """What a docker command printed; Problem with its reason and the fix where it fails."""
    answer = ask(["docker", *arguments], timeout=timeout, source=source, sink=sink)
    if answer.code:
        raise Problem(f"`docker {arguments[0]}` failed: {answer.reason}", fix)
    return answer.out


def _version() -> Answer:
    return ask(["docker", "version", "--format", "{{.Server.Version}}"], timeout=_ASK_SECONDS)


def _refuse_where_not_ours(answer: Answer) -> None:
    reason = answer.reason
    if "permission denied" in reason.lower():
        raise Problem(
            f"the Docker engine at {host()} refuses this user",
            "add the user to the group docker and log in again, or be root",
        )
    if host() != _DEFAULT_HOST:
        where = "DOCKER_HOST" if os.environ.get("DOCKER_HOST") else "the current Docker context"
        raise Problem(
            f"{where} names the engine {host()}, which does not answer: {reason}",
            "start that engine, or choose another one (unset DOCKER_HOST, `docker context use NAME`)",
        )
    if os.environ.get(SWITCH, "").lower() in ("no", "0", "false", "off"):
        raise Problem(
            f"no Docker engine answers, and {SWITCH}={os.environ[SWITCH]} forbids to install or start one: {reason}",
            f"start one, set DOCKER_HOST, or unset {SWITCH}",
        )
    if not debian.is_ours():
        raise Problem(
            f"no Docker engine answers: {reason}",
            "start Docker (Docker Desktop, or `sudo systemctl start docker`) or install it (https://docs.docker.com/engine/install), "
            "or set DOCKER_HOST; on a Debian-like system, running this as root installs one",
        )


def _start(say: Say) -> None:
    if Path("/run/systemd/system").is_dir():
        say("Docker: starting the engine (systemctl start docker)")
        ask(["systemctl", "start", "docker"], timeout=_START_SECONDS)
        _wait(None, Path("journalctl -u docker"))
        return
    log = cache_dir() / "dockerd.log"
    process = None
    running = {name: _runs(file, name) for file, name in _PID_FILES.items()}  # each: what is stale goes
    if not running["dockerd"]:  # a containerd that it left is taken over
        say(f"Docker: starting dockerd, which goes on running (log: {log})")
        with log.open("ab") as output:
            process = subprocess.Popen(
                ["dockerd"],
                cwd="/",
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )
    _wait(process, log)


def _runs(file: Path, name: str) -> bool:
    """Whether the daemon of a PID file runs; a file without its daemon goes."""
    try:
        number = int(file.read_text())
        command, _, state = Path(f"/proc/{number}/stat").read_text().partition(" (")[2].rpartition(") ")
        if command == name and state[0] != "Z":  # the dead stay in the table where nobody asks how they ended
            return True
    except (OSError, ValueError):
        pass
    file.unlink(missing_ok=True)
    return False


def _wait(process: subprocess.Popen[bytes] | None, log: Path) -> None:
    deadline = time.monotonic() + _START_SECONDS
    while (answer := _version()).code:
        ended = process is not None and process.poll() is not None
        if ended or time.monotonic() > deadline:
            raise Problem(
                f"the Docker engine was started and {'ended again' if ended else 'does not answer'}: "
                f"{_last_lines(log) or answer.reason}",
                f"see {log}; in a container, the engine needs a privileged one",
            )
        time.sleep(_POLL_SECONDS)


def _last_lines(log: Path) -> str:
    return "\n".join(log.read_text(errors="replace").splitlines()[-5:]) if log.is_file() else ""
