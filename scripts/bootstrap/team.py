"""Large teams. Pulumi writes its whole state at every step, so that the time for each user grows with their number."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from scripts.bootstrap.stack import Stack, resources_of, with_resources
from scripts.machine.processes import Say

_TYPE = "pulumi-python:dynamic/mlflow:"
_COMPONENT = "mlops-stack:components:MlflowTeam"
# Users and permissions; the state of a smaller team is written in a moment.
_LARGE = 200

# Options of an `up` that leaves accounts and permissions as they are.
ALL_BUT_ACCOUNTS = tuple(
    f"--exclude=**{_TYPE}{kind}::**"
    for kind in ("User", "Experiment", "ExperimentPermission", "RegisteredModelPermission")
)
# The state is written once, at the end. An `up` that is cut short is gone on with: the provider knows accounts of this stack by
# their passwords, and permissions are set, whatever they were.
WRITE_ONCE = {"PULUMI_SKIP_CHECKPOINTS": "true"}


def is_large(stack: Stack) -> bool:
    """Whether the settings declare many users and permissions."""
    # Only asked where there is an answer: each question to the CLI takes half a second.
    users = stack.get_config("mlflowUsers") if stack.sets("mlflowUsers") else None
    if not isinstance(users, list):
        return False
    held = [user.get(kind) for user in users if isinstance(user, dict) for kind in ("experiments", "models")]
    return len(users) + sum(len(each) for each in held if isinstance(each, dict)) > _LARGE


def forget(stack: Stack, resources: Sequence[Mapping[str, Any]], say: Say) -> None:
    """Before a `destroy`: take a large team out of the state at once. Its accounts go, or are kept, with MLflow's database."""
    members = [item for item in resources if str(item.get("type", "")).startswith(_TYPE)]
    component = next((item["urn"] for item in resources if item.get("type") == _COMPONENT), None)
    if len(members) <= _LARGE or component is None:
        return
    say(f"Team: forgetting {len(members)} users and permissions, which go or stay with MLflow's database")
    stack.forget(component)


def forget_experiment_permissions(stack: Stack) -> None:
    """Before an `up` on another database, where the same numbers are other experiments: all are granted anew, none is taken away."""
    exported = stack.exported()
    there = resources_of(exported)
    kept = [item for item in there if item["type"] != f"{_TYPE}ExperimentPermission"]
    if len(kept) < len(there):
        stack.import_(with_resources(exported, kept))
