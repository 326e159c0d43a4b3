"""Whatever teams were declared one after another, the server ends up with the last one, and nobody else is touched."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from components.mlflow_auth.client import MlflowAuthClient
from components.mlflow_auth.errors import NotFound
from components.mlflow_auth.permissions import LEVELS, Target, experiment, model
from tests.integration.mlflow_auth.engine import Declared, Engine
from tests.integration.mlflow_auth.servers import Server

NAMES = ("ana", "ben", "cem")
THINGS = (experiment("0"), experiment("901"), model("churn"), model("a model with spaces"))

members = st.fixed_dictionaries(
    {
        "password": st.sampled_from(["first-password-1", "second-password-2"]),
        "is_admin": st.booleans(),
        "permissions": st.dictionaries(st.sampled_from(THINGS), st.sampled_from(LEVELS), max_size=4),
    }
)
teams = st.dictionaries(st.sampled_from(NAMES), members, max_size=3)
Team = dict[str, dict[str, Any]]


def program(team: Team, server: Server, tag: str) -> list[Declared]:
    """The resources of a team."""
    resources = []
    for short, member in team.items():
        name, connection = f"{tag}-{short}", server.connection()
        props = {
            **connection,
            "username": name,
            "password": member["password"],
            "is_admin": member["is_admin"],
        }
        resources.append(Declared(name, "user", {**props, "adopt": False}))
        for target, level in member["permissions"].items():
            is_experiment = target.kind == "experiments"
            key = "experiment_id" if is_experiment else "model_name"
            kind = "experiment-permission" if is_experiment else "model-permission"
            props = {**connection, "username": name, key: target.name, "permission": level}
            resources.append(Declared(f"{name}/{target}", kind, props))
    return resources


def on_server(
    client: MlflowAuthClient, tag: str, team: Team
) -> dict[str, tuple[bool, bool, dict[Target, str]]]:
    """Of each possible member who exists: does the declared password log in, role, permissions."""
    found = {}
    for short in NAMES:
        name = f"{tag}-{short}"
        try:
            user = client.get_user(name)
        except NotFound:
            continue
        logs_in = short in team and client.authenticate(name, team[short]["password"]) is not None
        found[short] = (logs_in, user.is_admin, client.permissions_of(name))
    return found


@pytest.fixture
def bystander(server: Server, tag: str) -> Any:
    """A user nobody declared, and a check that nothing about him changed."""
    client, name = server.client(), f"{tag}-bystander"
    made = client.create_user(name, "bystander-password")
    held = {THINGS[0]: "EDIT", THINGS[2]: "NO_PERMISSIONS"}
    for target, level in held.items():
        client.set_permission(name, target, level)
    yield
    assert client.authenticate(name, "bystander-password") == made
    assert client.permissions_of(name) == held
    client.delete_user(name)


@pytest.mark.usefixtures("bystander")
def test_any_sequence_of_teams_converges(server: Server, tag: str) -> None:
    client = server.client()

    @settings(
        max_examples=6,
        derandomize=True,
        deadline=None,
        database=None,
        suppress_health_check=list(HealthCheck),
    )
    @given(sequence=st.lists(teams, min_size=2, max_size=4))
    def converges(sequence: list[Team]) -> None:
        engine = Engine()
        try:
            check(engine, sequence)
        finally:
            engine.up([])
        assert on_server(client, tag, {}) == {}

    def check(engine: Engine, sequence: list[Team]) -> None:
        for team in sequence:
            engine.up(program(team, server, tag))
        last = sequence[-1]
        wanted = {short: (True, member["is_admin"], member["permissions"]) for short, member in last.items()}
        assert on_server(client, tag, last) == wanted
        assert not engine.up(program(last, server, tag)), "a second up changes something"
        engine.refresh()
        assert not engine.up(program(last, server, tag)), "an up after a refresh changes something"

    converges()
