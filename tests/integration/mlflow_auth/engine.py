"""What Pulumi's engine does with the providers, without Pulumi: enough to bring about many declared teams quickly."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

from pulumi.dynamic import ResourceProvider

from components.mlflow_auth import provider as providers
from components.mlflow_auth.provider import (
    ExperimentPermissionProvider,
    RegisteredModelPermissionProvider,
    UserProvider,
)

USERS, PERMISSIONS = 0, 1
_PROVIDERS: dict[str, tuple[int, ResourceProvider]] = {
    "user": (USERS, UserProvider()),
    "experiment-permission": (PERMISSIONS, ExperimentPermissionProvider()),
    "model-permission": (PERMISSIONS, RegisteredModelPermissionProvider()),
}

Props = dict[str, Any]


@dataclass(frozen=True)
class Declared:
    """One resource of a program. Its name is what the engine knows it by."""

    name: str
    kind: str
    props: Props


@dataclass
class Engine:
    """Keeps a state like Pulumi's, and counts what each `up` does. Resources of one layer run four at a time."""

    state: dict[str, tuple[str, str, Props]] = field(default_factory=dict)

    def up(self, program: Iterable[Declared]) -> Counter[str]:
        providers._permissions.clear()  # each program has a process of its own
        done: Counter[str] = Counter()
        declared = {resource.name: resource for resource in program}
        replaced: list[tuple[str, str, Props]] = []
        for layer in (USERS, PERMISSIONS):
            now = [resource for resource in declared.values() if _PROVIDERS[resource.kind][0] == layer]
            for operation, left in self._each(lambda resource: self._apply(resource), now):
                if operation != "same":
                    done[operation] += 1
                replaced += [left] if left else []
        gone = [(name, entry) for name, entry in self.state.items() if name not in declared]
        for layer in (PERMISSIONS, USERS):
            old = [entry for _, entry in gone if _PROVIDERS[entry[0]][0] == layer]
            old += [entry for entry in replaced if _PROVIDERS[entry[0]][0] == layer]
            for _ in self._each(lambda entry: _PROVIDERS[entry[0]][1].delete(entry[1], entry[2]), old):
                done["delete"] += 1
        for name, _ in gone:
            del self.state[name]
        return done

    def refresh(self) -> None:
        for name, (kind, id_, props) in list(self.state.items()):
            found = _PROVIDERS[kind][1].read(id_, _wire(props))
            if found.id:
                self.state[name] = (kind, found.id, _wire(found.outs))
            else:
                del self.state[name]

    def _apply(self, resource: Declared) -> tuple[str, tuple[str, str, Props] | None]:
        provider, old = _PROVIDERS[resource.kind][1], self.state.get(resource.name)
        checked = provider.check(_wire(old[2]) if old else {}, _wire(resource.props))
        assert not checked.failures, [(failure.property, failure.reason) for failure in checked.failures]
        props = _wire(checked.inputs)
        if old is None:
            made = provider.create(props)
            self.state[resource.name] = (resource.kind, made.id, _wire(made.outs))
            return "create", None
        diff = provider.diff(old[1], _wire(old[2]), props)
        if diff.replaces:
            made = provider.create(props)
            self.state[resource.name] = (resource.kind, made.id, _wire(made.outs))
            return "replace", old
        if diff.changes:
            outs = provider.update(old[1], _wire(old[2]), props).outs
            self.state[resource.name] = (resource.kind, old[1], _wire(outs))
            return "update", None
        return "same", None

    @staticmethod
    def _each(action: Any, things: list[Any]) -> list[Any]:
        with ThreadPoolExecutor(4) as pool:
            return list(pool.map(action, things))


def _wire(props: Props | None) -> Props:
    """Properties as they arrive on the other side of the engine."""
    return json.loads(json.dumps(props or {}))
