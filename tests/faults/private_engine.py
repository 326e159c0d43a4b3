"""A Docker engine of the tests' own, as if on another machine: it may be killed and run out of disk, and nobody else notices."""

from __future__ import annotations

import os
import secrets
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from tests.conditions import until
from tests.engine import docker

_NEEDED = ("dockerd", "ip", "nsenter", "losetup", "mkfs.ext4")
_STOP_SECONDS = 120  # longer than a stack's containers are given to end
_DISK_BYTES = 400 << 20


def missing() -> str:
    """Why there can be no such engine here; empty where there can."""
    if os.geteuid() != 0:
        return "a Docker engine of its own needs root"
    absent = [command for command in _NEEDED if not shutil.which(command)]
    return f"a Docker engine of its own needs {', '.join(absent)}" if absent else ""


def _run(*command: str) -> str:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{' '.join(command)}: {done.stdout}{done.stderr}"
    return done.stdout.strip()


@dataclass
class PrivateEngine:
    """A dockerd with folders, a socket and a network namespace of its own.

    The namespace is for the firewall: a dockerd that starts clears the rules of one that is there. What is published is reached
    at `address`, through a pair of virtual interfaces.
    """

    folder: Path
    name: str = field(default_factory=lambda: f"t{secrets.token_hex(3)}")
    process: subprocess.Popen[bytes] | None = None

    def __post_init__(self) -> None:
        self.host = f"unix://{self.folder}/docker.sock"
        self.environment = {**os.environ, "DOCKER_HOST": self.host}
        network, first = f"10.214.{secrets.randbelow(256)}", secrets.randbelow(64) * 4
        self.gateway, self.address = f"{network}.{first + 1}", f"{network}.{first + 2}"

    def connect(self) -> None:
        """Make the network namespace and the way into it."""
        inside = ("ip", "-netns", self.name)
        _run("ip", "netns", "add", self.name)
        _run("ip", "link", "add", self.name, "type", "veth", "peer", "name", "eth0", "netns", self.name)
        _run("ip", "address", "add", f"{self.gateway}/30", "dev", self.name)
        _run("ip", "link", "set", self.name, "up")
        _run(*inside, "address", "add", f"{self.address}/30", "dev", "eth0")
        _run(*inside, "link", "set", "eth0", "up")
        _run(*inside, "link", "set", "lo", "up")

    def start(self) -> None:
        """Start dockerd; return when it answers."""
        settings = self.folder / "daemon.json"  # in place of the machine's
        settings.write_text("{}")
        command = [
            *("nsenter", f"--net=/run/netns/{self.name}", "dockerd", "--config-file", str(settings)),
            *("--host", self.host, "--pidfile", f"{self.folder}/docker.pid"),
            *("--data-root", f"{self.folder}/data", "--exec-root", f"{self.folder}/run"),
            *("--bridge", "none", "--default-address-pool", "base=10.213.0.0/16,size=24"),
            # It starts a containerd of its own, except where the system has one for all: there, it keeps to itself.
            *("--containerd-namespace", self.name, "--containerd-plugins-namespace", f"{self.name}-plugins"),
        ]
        with self._log.open("ab") as log:
            self.process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True
            )
        until(self._answers, "an answer of the engine")

    @property
    def _log(self) -> Path:
        return self.folder / "dockerd.log"

    def _answers(self) -> bool:
        assert self._runs(), self._log.read_text()[-2000:]
        return self.docker("version", check=False).returncode == 0

    def _runs(self) -> bool:
        return self.process is not None and self.process.poll() is None

    def docker(self, *arguments: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        return docker(*arguments, check=check, environment=self.environment)

    def load(self, images: Iterable[str]) -> None:
        """Take over images from the machine's engine."""
        with subprocess.Popen(["docker", "save", *images], stdout=subprocess.PIPE) as saved:
            load = ["docker", "load", "--quiet"]
            subprocess.run(
                load, stdin=saved.stdout, stdout=subprocess.DEVNULL, env=self.environment, check=True
            )
        assert saved.returncode == 0

    def end(self, by: signal.Signals) -> None:
        """Send dockerd alone the signal; return when it is gone, and with it the containerd that it started."""
        assert self.process
        file = self.folder / "run" / "containerd" / "containerd.pid"
        containerd = file.read_text().strip() if file.exists() else ""
        self.process.send_signal(by)
        self.process.wait(timeout=_STOP_SECONDS)
        # A dockerd that starts believes it to run as long as the process is in the table, and waits for it in vain.
        until(lambda: not (containerd and Path("/proc", containerd).exists()), "the end of containerd")

    def crash(self) -> None:
        """End it with all that runs on it, at once, as the machine's end does."""
        ids = self.docker("ps", "--quiet").stdout.split()
        running = self.docker("inspect", "--format", "{{.State.Pid}}", *ids).stdout.split()
        # A container's first process is the child of a shim, which would tell the next dockerd how it ended.
        shims = [Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2].split()[1] for pid in running]
        self.end(signal.SIGKILL)
        for pid in (*shims, *running):
            os.kill(int(pid), signal.SIGKILL)

    def close(self) -> None:
        """Take away the engine and all it has."""
        try:
            if self.process:
                if not self._runs():
                    self.start()  # containers outlive a dockerd that was killed; the next one knows them
                if left := self.docker("ps", "--all", "--quiet").stdout.split():
                    self.docker("rm", "--force", *left)
        finally:
            if self._runs():
                self.end(signal.SIGTERM)
            mounts = [line.split()[1] for line in Path("/proc/mounts").read_text().splitlines()]
            for mount in reversed(mounts):
                if mount.startswith(f"{self.folder}/"):
                    _run("umount", "--lazy", mount)
            if Path(f"/run/netns/{self.name}").exists():
                _run("ip", "netns", "delete", self.name)  # its interfaces go with it


@contextmanager
def private_engine(images: Iterable[str]) -> Iterator[PrivateEngine]:
    """An engine that has these images; nothing of it stays."""
    # Not below pytest's folder: a socket's path is short.
    folder = Path(tempfile.mkdtemp(prefix="engine-"))
    engine = PrivateEngine(folder)
    try:
        engine.connect()
        engine.start()
        engine.load(images)
        yield engine
    finally:
        engine.close()
        shutil.rmtree(folder)


@dataclass
class SmallDisk:
    """A file system of its own on `device`, mounted here, too: it can be filled and freed whatever its service does."""

    device: str
    mount: Path

    def fill(self) -> None:
        """To the last block."""
        with (self.mount / "filler").open("wb") as filler:
            size, more = 0, 64 << 20
            while more >= 4096:
                try:
                    os.posix_fallocate(filler.fileno(), size, more)
                    size += more
                except OSError:
                    more //= 2

    def free(self) -> None:
        (self.mount / "filler").unlink(missing_ok=True)


@contextmanager
def small_disk(folder: Path) -> Iterator[SmallDisk]:
    file, mount = folder / "disk", folder / "mounted"
    mount.mkdir(parents=True)
    with file.open("wb") as disk:
        disk.truncate(_DISK_BYTES)
    _run("mkfs.ext4", "-q", "-b", "4096", str(file))
    device = _run("losetup", "--find", "--show", str(file))
    try:
        _run("mount", device, str(mount))
        try:
            yield SmallDisk(device, mount)
        finally:
            _run("umount", str(mount))
    finally:
        _run("losetup", "--detach", device)
