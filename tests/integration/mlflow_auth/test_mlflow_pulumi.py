"""The resources under the real `pulumi`: teams one after another, drift, secrets, and whom nobody declared."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import requests

from components.mlflow_auth.errors import NotFound
from components.mlflow_auth.permissions import experiment, model
from tests.integration.mlflow_auth.project import Project
from tests.integration.mlflow_auth.servers import Server

FIRST, SECOND = "first-password-1", "second-password-2"


@pytest.fixture
def project(server: Server, tmp_path: Path) -> Iterator[Project]:
    project = Project(tmp_path, server)
    yield project
    project.destroy()


def test_teams_one_after_another(server: Server, project: Project, tag: str) -> None:
    client, churn = server.client(), f"{tag} churn"
    ada, ben, cem, zoe = (f"{tag}-{name}" for name in ("ada", "ben", "cem", "zoe"))
    bystander = client.create_user(zoe, FIRST)
    client.set_permission(zoe, model("scores"), "NO_PERMISSIONS")

    project.declare(
        {
            ada: {
                "password": FIRST,
                "admin": True,
                "experiments": {churn: "EDIT"},
                "models": {"scores": "READ"},
            },
            ben: {"password": FIRST, "experiments": {churn: "NO_PERMISSIONS", "0": "MANAGE"}},
        },
        experiments=(churn,),
    )
    project.up()
    churn_id = client.experiment_by_name(churn).id
    logged_in = client.authenticate(ada, FIRST)
    assert logged_in
    assert logged_in.is_admin
    assert client.permissions_of(ada) == {experiment(churn_id): "EDIT", model("scores"): "READ"}
    assert client.permissions_of(ben) == {experiment(churn_id): "NO_PERMISSIONS", experiment("0"): "MANAGE"}
    exported = project.state()
    assert not [secret for secret in (FIRST, server.password) if secret in exported]

    # Another password, role and level in place; one user gone, one new, who is given a permission in the same run.
    project.declare(
        {
            ada: {"password": SECOND, "experiments": {churn: "MANAGE"}},
            cem: {"password": FIRST, "models": {"scores": "EDIT", "a model": "READ"}},
        },
        experiments=(churn,),
    )
    project.up()

    def as_declared() -> bool:
        user = client.authenticate(ada, SECOND)
        return (
            user is not None
            and not user.is_admin
            and client.permissions_of(ada) == {experiment(churn_id): "MANAGE"}
            and client.permissions_of(cem) == {model("scores"): "EDIT", model("a model"): "READ"}
        )

    assert as_declared()
    assert client.authenticate(ada, FIRST) is None
    with pytest.raises(NotFound):
        client.get_user(ben)
    project.up("--expect-no-changes")

    client.set_password(ada, "changed-by-hand")
    client.set_admin(ada, True)
    client.delete_user(cem)
    client.remove_permission(ada, experiment(churn_id))
    project.up("--refresh")
    assert as_declared()
    project.up("--refresh", "--expect-no-changes")

    project.destroy()
    for name in (ada, cem):
        with pytest.raises(NotFound):
            client.get_user(name)
    assert client.authenticate(zoe, FIRST) == bystander
    assert client.permissions_of(zoe) == {model("scores"): "NO_PERMISSIONS"}
    client.delete_user(zoe)


def test_a_user_made_by_hand_is_adopted_when_told_to(server: Server, project: Project, tag: str) -> None:
    client, name = server.client(), f"{tag}-eva"
    made = client.create_user(name, FIRST)
    project.declare({name: {"password": SECOND}})
    assert "adopt: true" in project.up(fails=True)
    assert client.authenticate(name, FIRST) == made
    project.declare({name: {"password": SECOND, "adopt": True}})
    project.up()
    assert client.authenticate(name, SECOND) == made
    project.declare({name: {"password": SECOND}})
    project.up("--expect-no-changes")


def test_experiments_with_each_others_numbers_keep_what_is_granted_on_them(
    server: Server, project: Project, tag: str
) -> None:
    """As on another database, where the same names have other numbers."""
    client, user = server.client(), f"{tag}-ida"
    names = (f"{tag} one", f"{tag} two")
    levels = dict(zip(names, ("EDIT", "NO_PERMISSIONS"), strict=True))
    project.declare({user: {"password": FIRST, "experiments": levels}}, experiments=names)
    project.up()
    one, two = (client.experiment_by_name(name).id for name in names)
    for number, name in ((one, f"{tag} between"), (two, names[0]), (one, names[1])):
        requests.post(
            f"{server.url}/api/2.0/mlflow/experiments/update",
            json={"experiment_id": number, "new_name": name},
            auth=(server.admin, server.password),
            timeout=30,
        ).raise_for_status()
    project.up("--refresh")
    assert client.permissions_of(user) == {experiment(two): "EDIT", experiment(one): "NO_PERMISSIONS"}
    project.up("--refresh", "--expect-no-changes")
