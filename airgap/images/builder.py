"""Builds the images of recipes.py, each once: an image's label tells from which inputs it was made."""

from __future__ import annotations

import hashlib
import io
import os
import shutil
import subprocess
import tarfile
import tempfile
import time
from collections.abc import Iterable
from pathlib import Path

from airgap.images import host
from airgap.images.recipes import DEBIAN, RECIPES, Recipe
from scripts.machine import debian
from scripts.machine.lock import held
from scripts.machine.paths import cache_dir
from scripts.machine.problems import Problem
from scripts.machine.processes import Say, say

LABEL = "mlops-stack.inputs"
_SHOWN_LINES = 15


def ensure(names: Iterable[str], say: Say = say, *, rebuild: bool = False) -> dict[str, str]:
    """Build the named images where they are missing or their inputs changed; name -> reference.

    `rebuild` builds them, and what they stand on, again from today's packages.
    """
    wanted = list(dict.fromkeys(names))
    if unknown := [name for name in wanted if name not in RECIPES]:
        raise Problem(
            f"no air-gapped image is called {', '.join(map(repr, unknown))}",
            f"name some of: {', '.join(RECIPES)}",
        )
    builder = _Builder(say, rebuild)
    return {name: builder.ensure(RECIPES[name]) for name in wanted}


class _Builder:
    def __init__(self, say: Say, rebuild: bool) -> None:
        self._say = say
        self._rebuild = rebuild
        self._done: set[str] = set()

    def ensure(self, recipe: Recipe) -> str:
        """The recipe's reference, after building it and what it stands on if need be."""
        inputs = _inputs(recipe)
        if recipe.name in self._done or (not self._rebuild and _label(recipe.reference) == inputs):
            return recipe.reference
        base = self.ensure(_base(recipe)) if recipe.base else ""
        with held(_folder() / f"{recipe.name}.lock", f"image {recipe.reference}", self._say):
            # Another process may have built it while this one waited for the lock.
            if self._rebuild or _label(recipe.reference) != inputs:
                self._build(recipe, base, inputs)
        self._done.add(recipe.name)
        return recipe.reference

    def _build(self, recipe: Recipe, base: str, inputs: str) -> None:
        self._say(f"image {recipe.reference}: building (no such image with these inputs on the engine)")
        started = time.monotonic()
        replaced = _image_id(recipe.reference)
        log = _folder() / f"{recipe.repository}.log"
        if recipe is DEBIAN:
            _import_debian(recipe, inputs, log, self._say)
        else:
            binaries = {name: _binary(name, self._say) for name in recipe.binaries}
            _docker_build(recipe, base, inputs, binaries, log, fresh=self._rebuild)
        if replaced and _inspect(replaced, "{{len .RepoTags}}") == "0":
            # Refused, and rightly so, while a container or another image still stands on it.
            subprocess.run(["docker", "rmi", replaced], capture_output=True, check=False)
        self._say(f"image {recipe.reference}: built in {time.monotonic() - started:.0f} s")


def _base(recipe: Recipe) -> Recipe:
    return DEBIAN if recipe.base == DEBIAN.name else RECIPES[recipe.base]


def _inputs(recipe: Recipe) -> str:
    """A hash of everything that makes the image what it is."""
    digest = hashlib.sha256()
    for path in _files(recipe.folder):
        digest.update(f"{path.relative_to(recipe.folder)} {os.access(path, os.X_OK)}\0".encode())
        digest.update(path.read_bytes() + b"\0")
    parts = [recipe.reference, recipe.target]
    parts += [RECIPES[binary].tag for binary in recipe.binaries]
    if recipe.needs_pip_conf:
        parts.append(host.pip_conf())
    if recipe.base:
        parts.append(_inputs(_base(recipe)))
    else:
        parts += [*host.debian_mirrors(), *host.ca_certificates()]
    digest.update("\0".join(parts).encode())
    return digest.hexdigest()[:32]


def _files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file() and "__pycache__" not in path.parts)


def _docker_build(
    recipe: Recipe, base: str, inputs: str, binaries: dict[str, Path], log: Path, *, fresh: bool
) -> None:
    command = ["docker", "build", "--tag", recipe.reference, "--label", f"{LABEL}={inputs}", "--force-rm"]
    command += ["--build-arg", f"BASE_IMAGE={base}"]
    for name in host.proxies():
        command += ["--build-arg", name]
    if recipe.target:
        command += ["--target", recipe.target]
    if fresh:
        command.append("--no-cache")
    with tempfile.TemporaryFile(dir=_folder()) as context:
        _write_context(recipe, binaries, context)
        context.seek(0)
        # The classic builder: it is in every engine, and the base is an image that only this engine has.
        _run([*command, "-"], recipe, log, stdin=context, environment={"DOCKER_BUILDKIT": "0"})


def _write_context(recipe: Recipe, binaries: dict[str, Path], context: io.BufferedRandom) -> None:
    """The folder's files, the toolchain's binaries and pip.conf, as a tar."""
    with tarfile.open(fileobj=context, mode="w") as tar:
        for path in _files(recipe.folder):
            _add(
                tar,
                str(path.relative_to(recipe.folder)),
                path.read_bytes(),
                executable=os.access(path, os.X_OK),
            )
        for name, binary in binaries.items():
            _add(tar, name, binary.read_bytes(), executable=True)
        if recipe.needs_pip_conf:
            _add(tar, "pip.conf", host.pip_conf().encode(), executable=False)


def _add(tar: tarfile.TarFile, name: str, content: bytes, *, executable: bool) -> None:
    entry = tarfile.TarInfo(name)
    entry.size, entry.mode = len(content), 0o755 if executable else 0o644
    tar.addfile(entry, io.BytesIO(content))


def _import_debian(recipe: Recipe, inputs: str, log: Path, say: Say) -> None:
    _require_debootstrap(say)
    main, security = host.debian_mirrors()
    rootfs, overlay, archives = (_folder() / f"debian-{name}" for name in ("rootfs", "overlay", "archives"))
    _write_overlay(overlay, main, security)
    make = ["sh", str(recipe.folder / "make-rootfs.sh"), *map(str, (rootfs, overlay, archives)), main]
    changes = [f"LABEL {LABEL}={inputs}", 'CMD ["bash"]']
    options = [option for change in changes for option in ("--change", change)]
    with tempfile.TemporaryFile(dir=_folder()) as archive:
        _run(["unshare", "--mount", *make], recipe, log, stdout=archive)
        archive.seek(0)
        _run(["docker", "import", *options, "-", recipe.reference], recipe, log, stdin=archive)


def _write_overlay(overlay: Path, main: str, security: str) -> None:
    """The files that make the base at home on this network: package sources and certificates."""
    shutil.rmtree(overlay, ignore_errors=True)
    sources = overlay / "etc/apt/sources.list"
    sources.parent.mkdir(parents=True)
    sources.write_text(
        f"deb {main} bookworm main\ndeb {main} bookworm-updates main\ndeb {security} bookworm-security main\n"
    )
    certificates = overlay / "usr/local/share/ca-certificates"
    certificates.mkdir(parents=True)
    for pem in host.ca_certificates():
        name = hashlib.sha256(pem.encode()).hexdigest()[:16]
        (certificates / f"host-{name}.crt").write_text(pem + "\n")


def _require_debootstrap(say: Say) -> None:
    """The base image is made by debootstrap, which wants to be root: install it where that is ours to do."""
    elsewhere = (
        "run this as root on a Debian-like machine, or `docker load` images saved on one (docs/images.md)"
    )
    if os.geteuid() != 0:
        raise Problem("the air-gapped base image is made by debootstrap, which needs root", elsewhere)
    if shutil.which("debootstrap"):
        return
    if not debian.is_ours():
        raise Problem("the air-gapped base image is made by debootstrap, which is not here", elsewhere)
    debian.install(["debootstrap"], say)


def _binary(name: str, say: Say) -> Path:
    from airgap.toolchain import ensure as build  # only images with a binary of ours need the Go toolchain

    return build(name, say)


def _label(reference: str) -> str:
    return _inspect(reference, f'{{{{index .Config.Labels "{LABEL}"}}}}')


def _image_id(reference: str) -> str:
    return _inspect(reference, "{{.Id}}")


def _inspect(reference: str, template: str) -> str:
    command = ["docker", "image", "inspect", "--format", template, reference]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    except FileNotFoundError:
        raise Problem(
            "the command `docker` is not on PATH", "install Docker, or run `make up`, which does"
        ) from None
    if done.returncode and "no such image" not in done.stderr.lower():
        raise Problem(
            f"the Docker engine does not answer: {done.stderr.strip()}", "start it, or set DOCKER_HOST"
        )
    return done.stdout.strip()


def _run(
    command: list[str],
    recipe: Recipe,
    log: Path,
    *,
    stdin: io.BufferedRandom | None = None,
    stdout: io.BufferedRandom | None = None,
    environment: dict[str, str] | None = None,
) -> None:
    """Run one step with its output in the log; a failure tells the last lines."""
    with log.open("wb") as output:
        done = subprocess.run(
            command,
            stdin=stdin or subprocess.DEVNULL,
            stdout=stdout or output,
            stderr=output,
            env={**os.environ, **(environment or {})},
            close_fds=False,  # see scripts.machine.lock
            check=False,
        )
    if done.returncode:
        lines = log.read_text(encoding="utf-8", errors="replace").splitlines()[-_SHOWN_LINES:]
        shown = "\n".join(f"    {line}" for line in lines)
        raise Problem(
            f"building the image {recipe.reference} failed: `{command[0]} {command[1]}` ended with "
            f"{done.returncode}, and its last lines were\n{shown}",
            f"see {log}; once the cause is gone, run it again: it continues from the last finished step",
        )


def _folder() -> Path:
    folder = cache_dir() / "images"
    folder.mkdir(parents=True, exist_ok=True)
    return folder
