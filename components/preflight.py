"""What is looked at on the machine before anything is changed: names and ports that must be free, data that must stay readable."""

from __future__ import annotations

import json
import os
import re
import socket
import subprocess
from collections.abc import Iterator, Mapping
from typing import Any

from components.images import reference, version_of
from components.problems import Problem, ProblemsError
from components.settings import PROJECT, Settings, published_ports

_SECONDS = 20
# They change their databases for a new release, and an older one cannot read them any more.
_ONLY_UPWARDS = {
    "mlflow-server": ("mlflow", "mlflowVersion"),
    "langfuse-web": ("langfuse-web", "langfuseVersion"),
}
_POSTGRES = {"mlflow-postgres", "mlflow-postgres-auth", "langfuse-postgres"}


def check(settings: Settings, stack: str) -> None:
    """Raise ProblemsError where another stack owns a name, something else a port, or a release could not read the data.

    It asks the `docker` command; where that is missing, or the engine is another machine, the engine's own error has to do.
    """
    containers = _containers()
    problems = [
        *_names(settings, stack, containers),
        *_ports(settings, stack, containers),
        *_unreadable(settings, stack, containers),
    ]
    if problems:
        raise ProblemsError("The stack does not fit on this machine; nothing has been changed:", problems)


def _containers() -> list[Mapping[str, Any]]:
    """Of all containers on the engine: name, stack label and published ports."""
    try:
        ids = _docker("ps", "--all", "--quiet", "--no-trunc").split()
        # Of one that another stack removed in this moment it says that, and describes the others all the same.
        return json.loads(_docker("inspect", "--type", "container", *ids, check=False)) if ids else []
    except (OSError, subprocess.SubprocessError, ValueError):
        return []


def _docker(*arguments: str, check: bool = True) -> str:
    return subprocess.run(
        ["docker", *arguments],
        capture_output=True,
        text=True,
        timeout=_SECONDS,
        check=check,
        stdin=subprocess.DEVNULL,
    ).stdout


def _name(container: Mapping[str, Any]) -> str:
    return str(container["Name"]).removeprefix("/")


def _label(container: Mapping[str, Any], key: str) -> str:
    return (container["Config"].get("Labels") or {}).get(f"{PROJECT}.{key}", "")


def _owner(container: Mapping[str, Any]) -> str:
    return _label(container, "stack")


def _names(settings: Settings, stack: str, containers: list[Mapping[str, Any]]) -> Iterator[Problem]:
    prefix = settings.general.name_prefix
    ours = {f"{prefix}{service}" for service in _services(settings)}
    for container in containers:
        if _name(container) in ours and _owner(container) != stack:
            whose = _owner(container)
            yield Problem(
                f"{PROJECT}:namePrefix",
                f"the container {_name(container)} belongs to {f'the stack {whose}' if whose else 'something else'}",
                "pulumi config set namePrefix with a prefix of this stack's own, such as team-a-, or remove that container",
            )


def _services(settings: Settings) -> Iterator[str]:
    if settings.mlflow.enabled:
        yield from (
            "mlflow-server",
            "mlflow-postgres",
            "mlflow-postgres-auth",
            "mlflow-minio",
            "mlflow-create-bucket",
        )
    if settings.langfuse.enabled:
        yield from ("langfuse-web", "langfuse-worker", "langfuse-postgres", "langfuse-clickhouse")
        yield from ("langfuse-redis", "langfuse-minio", "langfuse-init-minio")


def _ports(settings: Settings, stack: str, containers: list[Mapping[str, Any]]) -> Iterator[Problem]:
    holders = {port: container for container in containers for port in _published(container)}
    for key, port in published_ports(settings).items():
        holder = holders.get(port)
        if holder is not None:
            if _owner(holder) == stack:
                continue
            what = f"the container {_name(holder)} publishes port {port}"
        elif _engine_is_here() and _busy(settings.general.bind_address, port):
            what = f"something on this machine listens on port {port}"
        else:
            continue
        yield Problem(
            f"{PROJECT}:{key}",
            what,
            f"stop that, or choose another port: pulumi config set {key} {port + 10000}",
        )


def _unreadable(settings: Settings, stack: str, containers: list[Mapping[str, Any]]) -> Iterator[Problem]:
    """By the versions that this stack's containers were made with."""
    made_with = {
        _label(container, "service"): _label(container, "version")
        for container in containers
        if _owner(container) == stack
    }
    kept = set(made_with) & set(_services(settings))
    for service, (image, key) in _ONLY_UPWARDS.items():
        if service not in kept:
            continue
        before, after = _release(made_with[service]), _release(_declared(image, settings))
        if before and after and after[:2] < before[:2]:
            yield Problem(
                f"{PROJECT}:{key}",
                f"{_text(after)} cannot read the databases of {service}, which runs {_text(before)}",
                f"stay with {_text(before)}; docs/operations.md tells how to go back with a backup",
            )
    after = _release(_declared("postgres", settings))
    if others := [
        service
        for service in sorted(kept & _POSTGRES)
        if after and (before := _release(made_with[service])) and before[0] != after[0]
    ]:
        yield Problem(
            f"{PROJECT}:images",
            f"Postgres {after[0]} cannot read the data of {', '.join(others)}, made by another major version",
            "keep Postgres' major version, or dump the databases first: docs/operations.md",
        )


def _declared(image: str, settings: Settings) -> str:
    if image == "mlflow" and image not in settings.general.images:
        return settings.mlflow.version
    return reference(image, settings)


def _release(version: str) -> tuple[int, ...]:
    """Of a version or an image's reference; empty where that does not tell it, as a digest."""
    found = re.match(r"\d+(\.\d+)*", version_of(version))
    return tuple(int(part) for part in found[0].split(".")) if found else ()


def _text(release: tuple[int, ...]) -> str:
    return ".".join(str(part) for part in release)


def _published(container: Mapping[str, Any]) -> Iterator[int]:
    if not (container.get("State") or {}).get("Running"):
        return
    for bindings in ((container.get("HostConfig") or {}).get("PortBindings") or {}).values():
        for binding in bindings or ():
            if str(binding.get("HostPort", "")).isdigit():
                yield int(binding["HostPort"])


def _engine_is_here() -> bool:
    host = os.environ.get("DOCKER_HOST", "")
    return not host or host.startswith(("unix://", "npipe://"))


def _busy(address: str, port: int) -> bool:
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((address, port))
        except PermissionError:  # a port below 1024 is the engine's to open, not ours
            return False
        except OSError as error:
            return error.errno == 98 or error.errno == 48 or error.errno == 10048
    return False
