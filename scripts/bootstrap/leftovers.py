"""What killed runs leave behind: half-made resources, and containers that the state does not know."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from scripts.bootstrap import engine, locks
from scripts.bootstrap.stack import PROJECT, Stack, state_folder
from scripts.machine.problems import Problem
from scripts.machine.processes import Say, foreground

STACK_LABEL, ID_LABEL, SERVICE_LABEL, VERSION_LABEL = (
    f"{PROJECT}.{key}" for key in ("stack", "id", "service", "version")
)
_IDENTITY = "random:index/randomId:RandomId"
_CONTAINER = "docker:index/container:Container"
_VOLUME = "docker:index/volume:Volume"
_ASK_SECONDS = 60
_STOP_SECONDS = 20


@dataclass(frozen=True)
class Found:
    """A container of the stack on the engine."""

    id: str
    name: str
    identity: str
    service: str
    version: str
    image: str
    run_once: bool
    status: str
    exit_code: int
    health: str


def clear(stack: Stack, say: Say, *, removing: bool = False) -> list[Mapping[str, Any]]:
    """Put right what can be put right without losing anything; refuse where the state does not fit the engine.

    `removing`: the stack is about to go, so data that is gone already is no reason to refuse. Returns the state's resources.
    """
    locks.clear(stack, say)
    state = stack.export()
    resources: list[Mapping[str, Any]] = state.get("resources") or []
    identity = identity_of(resources)
    there = containers(stack)
    refuse_foreign(stack, identity, there, _volumes(state).values())
    unpause(there, say)
    forgotten = _forget_volumes(stack, state, say, removing=removing)
    interrupted = bool(state.get("pending_operations"))
    if interrupted:
        say("Leftovers: an operation was cut short; refreshing the state")
        code = foreground(
            stack.command(
                "refresh", "--yes", "--skip-preview", "--suppress-outputs", "--clear-pending-creates"
            ),
            environment=stack.environment,
            cwd=stack.root,
        )
        if code:
            raise Problem(
                f"`pulumi refresh` ended with {code}, see above",
                f"put right what it says, and {stack.make('up')}",
            )
    if forgotten or interrupted:
        resources = stack.export().get("resources") or []
        there = containers(stack)  # what the engine was at when the run was killed is done by now
    known = {str(item.get("id", "")) for item in resources}
    _remove_containers(there, identity, resources, say)
    _remove_networks(identity, known, say)
    _attach(resources, say)
    return resources


def containers(stack: Stack) -> list[Found]:
    """All containers of a stack, running or not."""
    ids = _docker("ps", "--all", "--quiet", "--no-trunc", "--filter", f"label={_owner(stack)}").split()
    described: list[dict[str, Any]] = (
        json.loads(_docker("inspect", "--type", "container", *ids)) if ids else []
    )
    return [_found(item) for item in described]


def volumes(stack: Stack) -> list[str]:
    """Names of all volumes of a stack."""
    return sorted(
        _docker("volume", "ls", "--filter", f"label={_owner(stack)}", "--format", "{{.Name}}").split()
    )


def all_volumes() -> set[str]:
    """Names of all volumes on the engine."""
    return set(_docker("volume", "ls", "--format", "{{.Name}}").split())


def known_volumes(exported: Mapping[str, Any]) -> set[str]:
    """Names of the volumes that an exported state knows, whatever their labels say."""
    return set(_volumes(exported.get("deployment") or {}).values())


def _found(item: Mapping[str, Any]) -> Found:
    labels = item["Config"].get("Labels") or {}
    return Found(
        id=item["Id"],
        name=item["Name"].removeprefix("/"),
        identity=labels.get(ID_LABEL, ""),
        service=labels.get(SERVICE_LABEL, ""),
        version=labels.get(VERSION_LABEL, ""),
        image=item["Image"],
        run_once=item["HostConfig"]["RestartPolicy"]["Name"] in ("", "no"),
        status=item["State"]["Status"],
        exit_code=item["State"]["ExitCode"],
        health=(item["State"].get("Health") or {}).get("Status", ""),
    )


def _owner(stack: Stack) -> str:
    return f"{STACK_LABEL}={PROJECT}/{stack.name}"


def identity_of(resources: Iterable[Mapping[str, Any]]) -> str:
    """What everything of a state's stack is labelled with; empty where nothing was made yet."""
    for item in resources:
        if item.get("type") == _IDENTITY and str(item.get("urn", "")).endswith("::identity"):
            return str((item.get("outputs") or {}).get("hex", ""))
    return ""


def _volumes(state: Mapping[str, Any]) -> dict[str, str]:
    """URN -> name of the volumes in the state."""
    return {
        str(item.get("urn", "")): item["id"]
        for item in state.get("resources") or []
        if item.get("type") == _VOLUME
    }


def refuse_foreign(stack: Stack, identity: str, there: Iterable[Found], volumes: Iterable[str] = ()) -> None:
    """Stop where the engine has something of a stack of this name that this state does not know.

    `volumes` it knows, whatever their labels say: nobody can change those, and a state may have taken over another's data.
    """
    owned = f"--filter label={_owner(stack)}"
    foreign = [item.name for item in there if item.identity != identity]
    for kind in ("volume", "network"):
        form = f'{{{{.Name}}}} {{{{.Label "{ID_LABEL}"}}}}'
        lines = _docker(kind, "ls", "--filter", f"label={_owner(stack)}", "--format", form).splitlines()
        others = [name for name, _, its in (line.partition(" ") for line in lines) if its.strip() != identity]
        foreign += set(others).difference(volumes if kind == "volume" else ())
    if foreign:
        what = f"the state of the stack {stack.name} was lost" if not identity else "another state made them"
        raise Problem(
            f"the engine has parts of a stack {stack.name} that this state does not know, so {what}: "
            f"{', '.join(sorted(foreign))}",
            f"put the state back ({state_folder(stack.root) or 'its backend'}, from a backup or the other checkout), or choose "
            "another stack by STACK=NAME. docs/operations.md tells how a new state takes the data over. To remove everything WITH "
            "THE DATA (the last line) and start anew:\n"
            f"    docker ps -aq {owned} | xargs -r docker rm -f\n"
            f"    docker network ls -q {owned} | xargs -r docker network rm\n"
            f"    docker volume ls -q {owned} | xargs -r docker volume rm",
        )


def _forget_volumes(stack: Stack, state: Mapping[str, Any], say: Say, *, removing: bool) -> bool:
    """Docker's provider fails at a volume that is gone. It may be gone: an interrupted `destroy` removed it."""
    declared = _volumes(state)
    existing = all_volumes() if declared else set()
    gone = {urn: name for urn, name in declared.items() if name not in existing}
    deleting = {
        operation["resource"]["urn"]
        for operation in state.get("pending_operations") or []
        if operation.get("type") == "deleting"
    }
    if lost := sorted(name for urn, name in gone.items() if urn not in deleting and not removing):
        raise Problem(
            f"volumes with the stack's data are gone from this engine: {', '.join(lost)}",
            "is it the right engine (docker context ls)? If somebody removed them, this makes empty ones, into which a backup can be "
            f"restored:\n    {' && '.join(f'docker volume create {name}' for name in lost)}",
        )
    for urn, name in gone.items():
        say(f"Leftovers: forgetting {name}, which is gone")
        # With what stands on it: containers without their data, which are removed as unknown ones.
        stack.forget(urn)
    return bool(gone)


def _remove_containers(
    there: Sequence[Found], identity: str, resources: Iterable[Mapping[str, Any]], say: Say
) -> None:
    known = {str(item["urn"]): item for item in resources if item.get("type") == _CONTAINER}
    by_id = {str(item.get("id", "")): item for item in known.values()}
    ids = {item.id for item in there}
    gone = {urn for urn, item in known.items() if item.get("id") not in ids}
    for item in there:
        if item.identity != identity:
            continue
        if item.id not in by_id:
            say(f"Leftovers: removing {item.name}, which the state does not know")
            # In order: of a Postgres that is killed while it makes its data directory stays one that looks whole.
            if item.status == "running":
                _docker("stop", "--time", str(_STOP_SECONDS), item.id)
        elif item.run_once and item.status == "exited" and item.exit_code:
            say(f"Leftovers: removing {item.name}, which failed, so that it runs again")
        elif item.run_once and gone.intersection(by_id[item.id].get("dependencies") or ()):
            say(f"Leftovers: removing {item.name}, so that it runs again: its store is made anew")
        else:
            continue
        _docker("rm", "--force", item.id)


def unpause(found: Iterable[Found], say: Say) -> None:
    """Docker's provider takes a paused container for one that runs, and `docker start` refuses it."""
    if paused := [item for item in found if item.status == "paused"]:
        say(f"Going on with {', '.join(sorted(item.name for item in paused))}, paused by hand")
        _docker("unpause", *(item.id for item in paused))


def _remove_networks(identity: str, known: Iterable[str], say: Say) -> None:
    """Docker allows several networks of one name; the provider does not."""
    if not identity:
        return
    ids = _docker(
        "network", "ls", "--quiet", "--no-trunc", "--filter", f"label={ID_LABEL}={identity}"
    ).split()
    for network in ids:
        if network not in known:
            say(f"Leftovers: removing the network {network[:12]}, which an interrupted run left")
            _docker("network", "rm", network)


def _attach(resources: Iterable[Mapping[str, Any]], say: Say) -> None:
    """Docker's provider does not see that a running container was detached from a network, or that the network was removed."""
    declared = {
        str(item.get("id", "")): networks
        for item in resources
        if item.get("type") == _CONTAINER
        and (networks := (item.get("outputs") or {}).get("networksAdvanced"))
    }
    there = set(_docker("ps", "--quiet", "--no-trunc").split()) if declared else set()
    running = [container for container in declared if container in there]
    described = json.loads(_docker("inspect", "--type", "container", *running)) if running else []
    existing = set(_docker("network", "ls", "--format", "{{.Name}}").split()) if running else set()
    for item in described:
        name, attached = item["Name"].removeprefix("/"), item["NetworkSettings"]["Networks"]
        names = {*attached, *(network["NetworkID"] for network in attached.values())}
        missing = [network for network in declared[item["Id"]] if network["name"] not in names]
        if gone := [network["name"] for network in missing if network["name"] not in existing]:
            say(f"Leftovers: removing {name}, so that it is made again: its network {gone[0]} is gone")
            _docker("rm", "--force", item["Id"])
            continue
        for network in missing:
            say(f"Leftovers: attaching {name} to {network['name']} again")
            aliases = [part for alias in network.get("aliases") or () for part in ("--alias", alias)]
            _docker("network", "connect", *aliases, network["name"], item["Id"])


def _docker(*arguments: str) -> str:
    return engine.docker(*arguments, timeout=_ASK_SECONDS)
