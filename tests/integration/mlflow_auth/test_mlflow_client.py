"""The client against real servers of both API families."""

from __future__ import annotations

import pytest

from components.mlflow_auth import errors
from components.mlflow_auth.auth_database import user_lister
from components.mlflow_auth.client import MlflowAuthClient, User
from components.mlflow_auth.permissions import LEVELS, Target, experiment, model
from tests.integration.mlflow_auth.servers import Server

PASSWORD = "a-long-enough-password"


def test_asks_for_the_version_that_runs(server: Server) -> None:
    assert ".".join(map(str, server.client().version)) == server.version


def test_life_of_a_user(server: Server, tag: str) -> None:
    client, name = server.client(), f"{tag}-ada"
    made = client.create_user(name, PASSWORD, is_admin=True)
    assert client.authenticate(name, PASSWORD) == client.get_user(name) == made
    assert made == User(name, True, made.id)
    assert client.authenticate(name, PASSWORD + "!") is None
    with pytest.raises(errors.AlreadyExists):
        client.create_user(name, PASSWORD)

    client.set_admin(name, False)
    client.set_password(name, PASSWORD + "2")
    assert client.authenticate(name, PASSWORD) is None
    assert client.authenticate(name, PASSWORD + "2") == User(name, False, made.id)

    own = MlflowAuthClient(server.url, name, PASSWORD + "2")
    own.set_password(name, PASSWORD + "3")
    assert client.authenticate(name, PASSWORD + "3")
    with pytest.raises(errors.Rejected, match="shorter than 12"):
        client.set_password(name, "short")
    with pytest.raises(errors.Forbidden):
        MlflowAuthClient(server.url, name, PASSWORD + "3").create_user(f"{tag}-other", PASSWORD)

    client.delete_user(name)
    for gone in (client.get_user, client.delete_user):
        with pytest.raises(errors.NotFound):
            gone(name)


def test_a_user_with_permissions_can_be_deleted(server: Server, tag: str) -> None:
    client, name = server.client(), f"{tag}-bob"
    client.create_user(name, PASSWORD)
    client.set_permission(name, experiment("0"), "EDIT")
    client.set_permission(name, model("churn"), "READ")
    client.delete_user(name)
    client.create_user(name, PASSWORD)
    assert client.permissions_of(name) == {}
    client.delete_user(name)


@pytest.mark.parametrize(
    "target", [experiment("0"), experiment("98765"), model("no/such"), model("päper tiger")], ids=str
)
def test_every_level_replaces_every_other(server: Server, tag: str, target: Target) -> None:
    client, name = server.client(), f"{tag}-cy"
    client.create_user(name, PASSWORD)
    assert client.permission(name, target) is None
    for level in (*LEVELS, *reversed(LEVELS)):
        client.set_permission(name, target, level)
        assert client.permission(name, target) == level
        assert client.permissions_of(name) == {target: level}
    client.remove_permission(name, target)
    client.remove_permission(name, target)
    assert client.permission(name, target) is None
    client.delete_user(name)


def test_permissions_of_nobody(server: Server, tag: str) -> None:
    client = server.client()
    client.remove_permission(f"{tag}-nobody", experiment("0"))
    assert client.permission(f"{tag}-nobody", experiment("0")) is None
    with pytest.raises(errors.NotFound):
        client.set_permission(f"{tag}-nobody", experiment("0"), "READ")


def test_experiments_are_ensured_by_name(server: Server, tag: str) -> None:
    client, name = server.client(), f"{tag} an experiment/with=signs"
    with pytest.raises(errors.NotFound):
        client.experiment_by_name(name)
    made = client.ensure_experiment(name)
    assert client.ensure_experiment(name) == client.experiment(made.id) == made
    client.delete_experiment(made.id)
    assert client.experiment_by_name(name).deleted
    assert client.ensure_experiment(name) == made
    client.delete_experiment(made.id)
    client.delete_experiment("98765")


def test_lists_all_users(server: Server, tag: str) -> None:
    client = server.client()
    made = [client.create_user(f"{tag}-{name}", PASSWORD, is_admin=name == "ben") for name in ("ada", "ben")]
    users = client.list_users()
    assert [user for user in users if user.name.startswith(tag)] == made
    assert client.get_user(server.admin) in users
    assert [user.id for user in users] == sorted(user.id for user in users)
    for user in made:
        client.delete_user(user.name)


def test_says_how_to_list_users_where_the_server_cannot(server: Server) -> None:
    def without(container: str | None) -> MlflowAuthClient:
        lister = user_lister(container) if container else None
        return MlflowAuthClient(server.url, server.admin, server.password, user_lister=lister)

    if server.client().version >= (3, 10):
        assert (
            without(None).list_users()
            == without(server.container).list_users()
            == server.client().list_users()
        )
        return
    with pytest.raises(errors.Unsupported, match="no route that lists users"):
        without(None).list_users()
    for container, why in (
        (server.container, "--auth-container"),
        ("t-no-such-container", "(?i)no such container"),
    ):
        with pytest.raises(errors.Unsupported, match=why):
            without(container).list_users()
    with pytest.raises(ValueError, match="is not a container name"):
        user_lister("--privileged")


def test_follows_a_server_that_was_replaced_by_another_release(server: Server, tag: str) -> None:
    client, name = server.client(), f"{tag}-eva"
    client._version = (3, 4, 0) if client.version >= (3, 13) else (3, 17, 2)
    client.create_user(name, PASSWORD)
    client.set_permission(name, experiment("0"), "EDIT")
    assert client.permission(name, experiment("0")) == "EDIT"
    client.delete_user(name)


def test_wrong_credentials_and_wrong_servers_are_told_apart(server: Server) -> None:
    with pytest.raises(errors.WrongCredentials) as wrong:
        MlflowAuthClient(server.url, server.admin, "not-the-password").list_users()
    assert "not-the-password" not in str(wrong.value)
    with pytest.raises(errors.RouteMissing):
        MlflowAuthClient(server.url + "/elsewhere", server.admin, server.password).get_user(server.admin)
