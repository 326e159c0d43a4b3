"""The docker command for tests: containers with uploaded secrets, hardened as the stack's, removed after."""

from __future__ import annotations

import io
import json
import secrets
import subprocess
import tarfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

HARDENED = ("--cap-drop=ALL", "--security-opt=no-new-privileges")
DROPS_PRIVILEGES = tuple(
    f"--cap-add={name}" for name in ("CHOWN", "DAC_OVERRIDE", "FOWNER", "SETGID", "SETUID")
)
PATIENCE_SECONDS = 60


def docker(
    *arguments: str,
    stdin: bytes | None = None,
    check: bool = True,
    environment: Mapping[str, str] | None = None,
) -> subprocess.CompletedProcess[str]:
    """One docker command; with `check` its failure is the test's, told with what it printed."""
    done = subprocess.run(
        ["docker", *arguments], input=stdin, capture_output=True, env=environment, check=False
    )
    result = subprocess.CompletedProcess(
        done.args, done.returncode, done.stdout.decode(), done.stderr.decode()
    )
    assert not check or done.returncode == 0, f"docker {arguments[0]} failed: {result.stdout}{result.stderr}"
    return result


def tag_of(image: str) -> str:
    """A tag of an image, by its id or another tag."""
    return docker("image", "inspect", "--format", "{{index .RepoTags 0}}", image).stdout.strip()


def relabelled(image: str, tag: str) -> str:
    """The same content under another id, tagged, as a new release's image."""
    docker("build", "--quiet", "--tag", tag, "-", stdin=f"FROM {image}\nLABEL changed=yes\n".encode())
    return tag


@dataclass
class Container:
    name: str

    def start(self) -> None:
        docker("start", self.name)

    def stop(self) -> int:
        """`docker stop` as an operator would; the exit code, which is 137 where the engine had to kill."""
        docker("stop", "--time", "30", self.name)
        return self.exit_code()

    def exit_code(self) -> int:
        return int(docker("wait", self.name).stdout)

    def logs(self) -> str:
        done = docker("logs", self.name)
        return done.stdout + done.stderr

    def inspect(self) -> str:
        return docker("inspect", self.name).stdout

    def exec(self, *command: str, user: str = "", check: bool = True) -> subprocess.CompletedProcess[str]:
        options = ["--user", user] if user else []
        return docker("exec", *options, self.name, *command, check=check)

    def server_ids(self) -> tuple[int, int]:
        """User and group id of process 1."""
        status = self.exec("cat", "/proc/1/status").stdout
        ids = {line.split()[0]: int(line.split()[1]) for line in status.splitlines() if line[1:3] == "id"}
        return ids["Uid:"], ids["Gid:"]

    def wait_for(self, *command: str) -> None:
        """Until the command succeeds inside; if the container or the time ends first, fail with its log."""
        deadline = time.monotonic() + PATIENCE_SECONDS
        while self.exec(*command, check=False).returncode:
            running = json.loads(self.inspect())[0]["State"]["Running"]
            in_time = running and time.monotonic() < deadline
            assert in_time, f"never ready: {' '.join(command)}\n{self.logs()}"
            time.sleep(0.2)


@dataclass
class Engine:
    """Makes what a test needs under one random prefix and takes all of it away again."""

    image: Callable[[str], str]
    prefix: str = field(default_factory=lambda: f"t-{secrets.token_hex(3)}")
    containers: list[str] = field(default_factory=list)
    volumes: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        docker("network", "create", self.prefix)

    def volume(self) -> str:
        name = f"{self.prefix}-{len(self.volumes)}"
        docker("volume", "create", name)
        self.volumes.append(name)
        return name

    def create(
        self,
        image: str,
        *options: str,
        command: Sequence[str] = (),
        files: dict[str, str | bytes] | None = None,
    ) -> Container:
        """A container on the test's network, not yet started, with root-owned 0444 files uploaded into it."""
        name = f"{self.prefix}-{len(self.containers)}"
        self.containers.append(name)
        docker("create", "--name", name, "--network", self.prefix, *options, self.image(image), *command)
        if files:
            docker("cp", "-", f"{name}:/", stdin=_archive(files))
        return Container(name)

    def run(self, image: str, *options: str, **more) -> Container:
        container = self.create(image, *options, **more)
        container.start()
        return container

    def remove(self, container: Container) -> None:
        docker("rm", "--force", "--volumes", container.name)

    def close(self) -> None:
        docker("rm", "--force", "--volumes", *self.containers, check=False)
        docker("volume", "rm", *self.volumes, check=False)
        docker("network", "rm", self.prefix)


def _archive(files: dict[str, str | bytes]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for path, content in files.items():
            data = content.encode() if isinstance(content, str) else content
            entry = tarfile.TarInfo(path.lstrip("/"))
            entry.size, entry.mode = len(data), 0o444
            tar.addfile(entry, io.BytesIO(data))
    return buffer.getvalue()
