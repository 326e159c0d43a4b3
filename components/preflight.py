"""What is looked at on the machine before anything is changed: names and ports that must be free, data that must stay readable."""

from __future__ import annotations

import json
import os
import re
import socket
import subprocess
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from components.images import reference, version_of
from components.minio import endpoint_of
from components.problems import Problem, ProblemsError
from components.secrets import fingerprint
from components.settings import PROJECT, Settings, published_ports
from components.site import network_of, volume_of

_SECONDS = 20
_EVERYWHERE = ("", "0.0.0.0", "::")
# They change their databases for a new release, and an older one cannot read them any more.
_ONLY_UPWARDS = {
    "mlflow-server": ("mlflow", "mlflowVersion"),
    "langfuse-web": ("langfuse-web", "langfuseVersion"),
}
_POSTGRES = {"mlflow-postgres", "mlflow-postgres-auth", "langfuse-postgres"}


@dataclass(frozen=True)
class _Engine:
    """What is there: containers as `docker inspect` tells them; volumes and networks by name and the stack that they belong to."""

    containers: Sequence[Mapping[str, Any]] = ()
    volumes: Sequence[tuple[str, str]] = ()
    networks: Sequence[tuple[str, str]] = ()


def check(settings: Settings, stack: str) -> frozenset[str]:
    """The names of the volumes on the engine that are this stack's; so are those that nobody's label is on.

    Raise ProblemsError where another stack owns a name, something else a port, or data could no longer be reached or read. It
    asks the `docker` command; where that is missing, the engine's own error has to do.
    """
    engine = _look()
    services = set(_services(settings))
    ours = {
        service: container
        for container in engine.containers
        if _owner(container) == stack and (service := _label(container, "service")) in services
    }
    problems = [
        *_names(settings, stack, engine),
        *_renamed(settings, [name for name, owner in engine.volumes if owner == stack]),
        *_ports(settings, stack, engine.containers),
        *_unreadable(settings, ours),
        *_under_another_key(settings, ours),
        *_in_another_bucket(settings, ours),
    ]
    if problems:
        raise ProblemsError("The stack does not fit on this machine; nothing has been changed:", problems)
    return frozenset(name for name, owner in engine.volumes if owner in (stack, ""))


def _look() -> _Engine:
    ids = _docker("ps", "--all", "--quiet", "--no-trunc").split()
    # Of one that another stack removed in this moment it says that, and describes the others all the same.
    described = _docker("inspect", "--type", "container", *ids) if ids else ""
    try:
        containers = json.loads(described or "[]")
    except ValueError:
        containers = []
    return _Engine(containers, _owned("volume"), _owned("network"))


def _owned(kind: str) -> list[tuple[str, str]]:
    form = f'{{{{.Name}}}} {{{{.Label "{PROJECT}.stack"}}}}'
    lines = (line.partition(" ") for line in _docker(kind, "ls", "--format", form).splitlines())
    return [(name, owner.strip()) for name, _, owner in lines]


def _docker(*arguments: str) -> str:
    """What the command printed, whether or not it had all that was asked for; nothing where there is no answer."""
    try:
        return subprocess.run(
            ["docker", *arguments],
            capture_output=True,
            text=True,
            timeout=_SECONDS,
            check=False,
            stdin=subprocess.DEVNULL,
        ).stdout
    except (OSError, subprocess.SubprocessError):
        return ""


def _name(container: Mapping[str, Any]) -> str:
    return str(container["Name"]).removeprefix("/")


def _label(container: Mapping[str, Any], key: str) -> str:
    return (container["Config"].get("Labels") or {}).get(f"{PROJECT}.{key}", "")


def _owner(container: Mapping[str, Any]) -> str:
    return _label(container, "stack")


def _names(settings: Settings, stack: str, engine: _Engine) -> Iterator[Problem]:
    containers = [(_name(container), _owner(container)) for container in engine.containers]
    # A volume without a label was made by hand, for this stack.
    volumes = [(name, owner) for name, owner in engine.volumes if owner]
    for kind, wanted, there in (
        ("container", _services(settings), containers),
        ("network", _networks(settings), engine.networks),
        ("volume", _volumes(settings), volumes),
    ):
        ours = {f"{settings.general.name_prefix}{name}" for name in wanted}
        foreign: dict[str, list[str]] = {}
        for name, owner in there:
            if name in ours and owner != stack:
                foreign.setdefault(owner, []).append(name)
        for owner, names in foreign.items():
            what = (
                f"the {kind} {names[0]} belongs"
                if len(names) == 1
                else f"the {kind}s {', '.join(names)} belong"
            )
            yield Problem(
                f"{PROJECT}:namePrefix",
                f"{what} to {f'the stack {owner}' if owner else 'something else'}",
                "pulumi config set namePrefix with a prefix of this stack's own, such as team-a-"
                + (
                    "; where this is that stack, renamed: pulumi stack rename it back"
                    if kind == "volume"
                    else f", or remove {'it' if len(names) == 1 else 'them'}"
                ),
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


def _networks(settings: Settings) -> Iterator[str]:
    yield network_of("edge")
    for name, product in (("mlflow", settings.mlflow), ("langfuse", settings.langfuse)):
        if product.enabled:
            yield network_of(name)


def _volumes(settings: Settings) -> Iterator[str]:
    for product in (settings.mlflow, settings.langfuse):
        if product.enabled or settings.general.data_retention == "keep":
            yield from (volume_of(store) for store, managed in product.stores.items() if not managed)


def _renamed(settings: Settings, there: Collection[str]) -> Iterator[Problem]:
    """Docker cannot rename a volume: under another prefix, all would be empty."""
    own = [volume_of(store) for product in (settings.mlflow, settings.langfuse) for store in product.stores]
    prefixes = {name.removesuffix(volume) for name in there for volume in own if name.endswith(volume)}
    if prefixes and settings.general.name_prefix not in prefixes:
        before = min(prefixes)
        yield Problem(
            f"{PROJECT}:namePrefix",
            f"the stack has data in volumes whose names begin with {before or 'no prefix'!r}: {', '.join(sorted(there))}",
            f"pulumi config {f'set namePrefix {before}' if before else 'rm namePrefix'}; to give data other names, go by "
            "make backup, make destroy ARGS=--delete-data, this setting, make restore",
        )


def _ports(settings: Settings, stack: str, containers: Sequence[Mapping[str, Any]]) -> Iterator[Problem]:
    address = settings.general.bind_address
    for key, port in published_ports(settings).items():
        holder = next((item for item in containers if _publishes(item, address, port)), None)
        if holder is not None:
            if _owner(holder) == stack:
                continue
            what = f"the container {_name(holder)} publishes port {port}"
        elif _engine_is_here() and _busy(address, port):
            what = f"something on this machine listens on port {port}"
        else:
            continue
        yield Problem(
            f"{PROJECT}:{key}",
            what,
            f"stop that, or choose another port: pulumi config set {key} {port + 10000}",
        )


def _unreadable(settings: Settings, ours: Mapping[str, Mapping[str, Any]]) -> Iterator[Problem]:
    """By the versions that this stack's containers were made with."""
    made_with = {service: _release(_label(container, "version")) for service, container in ours.items()}
    for service, (image, key) in _ONLY_UPWARDS.items():
        before, after = made_with.get(service), _release(_declared(image, settings))
        if before and after and after[:2] < before[:2]:
            yield Problem(
                f"{PROJECT}:{key}",
                f"{_text(after)} cannot read the databases of {service}, which runs {_text(before)}",
                f"stay with {_text(before)}; docs/operations.md tells how to go back with a backup",
            )
    after = _release(_declared("postgres", settings))
    if others := [
        service
        for service in sorted(_POSTGRES)
        if after and (before := made_with.get(service)) and before[0] != after[0]
    ]:
        yield Problem(
            f"{PROJECT}:images",
            f"Postgres {after[0]} cannot read the data of {', '.join(others)}, made by another major version",
            "keep Postgres' major version, or dump the databases first: docs/operations.md",
        )


def _under_another_key(settings: Settings, ours: Mapping[str, Mapping[str, Any]]) -> Iterator[Problem]:
    """Data that would stay, and that Langfuse could not use."""
    web = ours.get("langfuse-web")
    if web is None:
        return
    for key, label, given, loss in (
        ("langfuseSalt", "salt", settings.langfuse.salt, "no API key would log in any more"),
        (
            *("langfuseEncryptionKey", "encryption-key", settings.langfuse.encryption_key),
            "stored LLM credentials could not be read",
        ),
    ):
        how, _, before = _label(web, label).partition(":")
        if before and (fingerprint(given) != before if given else how == "given"):
            yield Problem(
                f"{PROJECT}:{key}",
                f"it is another one than that with which Langfuse stored its data: {loss}",
                f"{'pulumi config rm it, or set' if given else 'set'} the one of before; where that may be lost: "
                f"docker rm -f {_name(web)}, and again",
            )


def _in_another_bucket(settings: Settings, ours: Mapping[str, Mapping[str, Any]]) -> Iterator[Problem]:
    """Artifacts that MLflow would no longer find in the stack's own MinIO."""
    server = ours.get("mlflow-server")
    if server is None or settings.mlflow.s3_endpoint:
        return
    variables = dict(item.partition("=")[::2] for item in server["Config"].get("Env") or ())
    own = variables.get("MLFLOW_S3_ENDPOINT_URL") == endpoint_of("mlflow-minio")
    before = variables.get("MLFLOW_ARTIFACTS_DESTINATION", "").removeprefix("s3://")
    if own and before and before != settings.mlflow.bucket:
        yield Problem(
            f"{PROJECT}:mlflowBucket",
            f"artifacts are in the bucket {before}, and MLflow would look for them in {settings.mlflow.bucket}",
            f"pulumi config set mlflowBucket {before}; to move them, copy the objects into the new bucket first, then "
            f"docker rm -f {_name(server)}, and again",
        )


def _declared(image: str, settings: Settings) -> str:
    if image == "mlflow" and image not in settings.general.images:
        return settings.mlflow.version
    return reference(image, settings)


def _release(version: str) -> tuple[int, ...]:
    """Of a version or an image's reference; empty where that does not tell it, as a digest."""
    # A number that goes on with a letter of hexadecimal digits is a commit's.
    found = re.match(r"\d+(?:\.\d+)*(?![\da-f])", version_of(version))
    return tuple(int(part) for part in found[0].split(".")) if found else ()


def _text(release: tuple[int, ...]) -> str:
    return ".".join(str(part) for part in release)


def _publishes(container: Mapping[str, Any], address: str, port: int) -> bool:
    """Whether it has the port where the address would need it."""
    if not (container.get("State") or {}).get("Running"):
        return False
    published = (container.get("HostConfig") or {}).get("PortBindings") or {}
    return any(
        binding.get("HostPort") == str(port)
        and (binding.get("HostIp") in (*_EVERYWHERE, address) or address in _EVERYWHERE)
        for inside, bindings in published.items()
        for binding in bindings or ()
        if inside.endswith("/tcp")
    )


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
