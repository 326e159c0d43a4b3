"""The providers against real servers: drift, adoption, interruption and the administrator's password."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from pulumi.dynamic import CreateResult, ReadResult, UpdateResult

from components.mlflow_auth import errors
from components.mlflow_auth.permissions import experiment
from components.mlflow_auth.provider import (
    AdminProvider,
    ExperimentPermissionProvider,
    ExperimentProvider,
    Props,
    RegisteredModelPermissionProvider,
    UserProvider,
)
from tests.integration.mlflow_auth.servers import Server

PASSWORD = "a-long-enough-password"


def outs(result: CreateResult | ReadResult | UpdateResult) -> Props:
    return dict(result.outs or {})


def user_props(server: Server, name: str, **changed: object) -> Props:
    return {
        **server.connection(),
        "username": name,
        "password": PASSWORD,
        "is_admin": False,
        "adopt": False,
        **changed,
    }


def test_drift_of_a_user_is_seen_and_repaired(server: Server, tag: str) -> None:
    client, name, users = server.client(), f"{tag}-ada", UserProvider()
    declared = user_props(server, name)
    state = outs(users.create(declared))

    assert not users.diff(name, outs(users.read(name, state)), declared).changes
    client.set_password(name, "changed-by-hand")
    client.set_admin(name, True)
    seen = outs(users.read(name, state))
    assert (seen["password"], seen["is_admin"]) == ("", True)
    assert users.diff(name, seen, declared).changes
    state = outs(users.update(name, seen, declared))
    assert client.authenticate(name, PASSWORD) == client.get_user(name)
    assert not client.get_user(name).is_admin

    client.delete_user(name)
    assert users.read(name, state).id == ""
    users.update(name, state, declared)
    assert client.authenticate(name, PASSWORD)
    for _ in range(2):
        users.delete(name, state)


def test_adopts_only_when_told_to(server: Server, tag: str) -> None:
    client, name, users = server.client(), f"{tag}-bob", UserProvider()
    client.create_user(name, "somebody-elses-password")
    with pytest.raises(errors.AlreadyExists, match="adopt: true"):
        users.create(user_props(server, name))
    assert client.authenticate(name, "somebody-elses-password")
    assert client.authenticate(name, PASSWORD) is None
    users.create(user_props(server, name, adopt=True, is_admin=True))
    assert client.authenticate(name, PASSWORD) == client.get_user(name)
    assert client.get_user(name).is_admin
    client.delete_user(name)


def test_takes_back_an_account_of_its_own_and_nobody_elses(server: Server, tag: str) -> None:
    client, name, users = server.client(), f"{tag}-cy", UserProvider()
    made = client.create_user(name, PASSWORD)
    state = outs(users.create(user_props(server, name, is_admin=True)))
    assert client.get_user(name).is_admin
    # One with more rights than declared is somebody else's doing.
    with pytest.raises(errors.AlreadyExists):
        users.create(user_props(server, name))
    assert client.get_user(name).is_admin
    # A database that outlived its stack: the same password, and permissions that may be others by now.
    client.set_admin(name, False)
    client.set_permission(name, experiment("0"), "EDIT")
    client.set_permission(name, experiment("901"), "READ")
    assert outs(users.create(user_props(server, name)))["user_id"] == state["user_id"] == made.id
    for thing, level in (("0", "NO_PERMISSIONS"), ("901", "READ")):
        declared = {**server.connection(), "username": name, "experiment_id": thing, "permission": level}
        ExperimentPermissionProvider().create(declared)
    assert client.permissions_of(name) == {experiment("0"): "NO_PERMISSIONS", experiment("901"): "READ"}
    client.set_password(name, "changed-by-hand")
    with pytest.raises(errors.AlreadyExists, match="adopt: true"):
        users.create(user_props(server, name))
    client.delete_user(name)


def test_drift_of_permissions_is_seen_and_repaired(server: Server, tag: str) -> None:
    client, name = server.client(), f"{tag}-dan"
    client.create_user(name, PASSWORD)
    for provider, key, thing in (
        (ExperimentPermissionProvider(), "experiment_id", "0"),
        (RegisteredModelPermissionProvider(), "model_name", "a/b c"),
    ):
        declared = {**server.connection(), "username": name, key: thing, "permission": "NO_PERMISSIONS"}
        made = provider.create(declared)
        target = next(iter(client.permissions_of(name)))
        assert made.id == f"{name}/{target.kind}/{thing}"
        client.set_permission(name, target, "MANAGE")
        seen = outs(provider.read(made.id, declared))
        assert seen["permission"] == "MANAGE"
        assert provider.diff(made.id, seen, declared).changes
        provider.update(made.id, seen, declared)
        assert client.permission(name, target) == "NO_PERMISSIONS"
        client.remove_permission(name, target)
        assert provider.read(made.id, declared).id == ""
        provider.update(made.id, seen, declared)
        assert client.permission(name, target) == "NO_PERMISSIONS"
        for _ in range(2):
            provider.delete(made.id, declared)
        assert client.permissions_of(name) == {}
    client.delete_user(name)


def test_reading_needs_the_id_only(server: Server, tag: str) -> None:
    client, name = server.client(), f"{tag}-eva"
    client.create_user(name, PASSWORD, is_admin=True)
    client.set_permission(name, experiment("0"), "EDIT")
    read = UserProvider().read(name, server.connection())
    assert (outs(read)["username"], outs(read)["is_admin"]) == (name, True)
    permission = ExperimentPermissionProvider().read(f"{name}/experiments/0", server.connection())
    assert outs(permission)["permission"] == "EDIT"
    with pytest.raises(errors.Rejected, match="USER/experiments/NAME"):
        ExperimentPermissionProvider().read(f"{name}/registered-models/0", server.connection())
    client.delete_user(name)


def test_experiments_come_back_and_stay(server: Server, tag: str) -> None:
    client, name, provider = server.client(), f"{tag} churn", ExperimentProvider()
    looked_up = {**server.connection(), "name": name, "create": False, "retain": True}
    with pytest.raises(errors.NotFound, match="switched off"):
        provider.create(looked_up)
    state = outs(provider.create({**looked_up, "create": True}))
    assert outs(provider.create(looked_up))["experiment_id"] == state["experiment_id"]
    client.delete_experiment(state["experiment_id"])
    assert provider.read(name, state).id == ""
    with pytest.raises(errors.NotFound, match=r"only a deleted experiment .* restore it"):
        provider.create(looked_up)
    assert outs(provider.create({**looked_up, "create": True})) == state
    provider.delete(name, state)
    assert not client.experiment_by_name(name).deleted
    provider.delete(name, {**state, "retain": False})
    assert client.experiment_by_name(name).deleted


class TestAdministrator:
    """Uses an administrator of its own, because the server's is shared."""

    @pytest.fixture
    def admin(self, server: Server, tag: str) -> Iterator[Server]:
        server.client().create_user(f"{tag}-root", PASSWORD, is_admin=True)
        yield Server(**{**vars(server), "admin": f"{tag}-root", "password": PASSWORD})
        server.client().delete_user(f"{tag}-root")

    def test_password_changes_with_the_old_one(self, admin: Server) -> None:
        provider, old = AdminProvider(), admin.connection()
        provider.create(old)
        new = {**old, "admin_password": PASSWORD + "-new"}
        assert provider.diff(admin.admin, old, new).changes
        provider.update(admin.admin, old, new)
        assert admin.client().authenticate(admin.admin, PASSWORD + "-new")
        assert admin.client().authenticate(admin.admin, PASSWORD) is None
        provider.update(admin.admin, old, new)  # interrupted before the state was written: again is harmless
        assert not provider.diff(admin.admin, outs(provider.read(admin.admin, new)), new).changes

    def test_a_lost_state_is_helped_by_the_previous_password(self, admin: Server) -> None:
        provider, new = AdminProvider(), {**admin.connection(), "admin_password": PASSWORD + "-new"}
        with pytest.raises(errors.WrongCredentials, match="neither the configured password"):
            provider.create(new)
        provider.create({**new, "previous_password": PASSWORD})
        assert admin.client().authenticate(admin.admin, PASSWORD + "-new")

    def test_a_password_changed_by_hand_is_seen_and_explained(self, server: Server, admin: Server) -> None:
        provider, declared = AdminProvider(), admin.connection()
        server.client().set_password(admin.admin, "changed-by-hand")
        seen = outs(provider.read(admin.admin, declared))
        assert provider.diff(admin.admin, seen, declared).changes
        with pytest.raises(errors.WrongCredentials) as wrong:
            provider.update(admin.admin, seen, declared)
        assert "set the stack's admin password" in str(wrong.value)
        assert PASSWORD not in str(wrong.value)

    def test_must_be_an_administrator(self, server: Server, admin: Server) -> None:
        server.client().set_admin(admin.admin, False)
        with pytest.raises(errors.Forbidden, match="is not an administrator"):
            AdminProvider().create(admin.connection())

    def test_default_passwords_must_not_log_in(
        self, server: Server, admin: Server, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        # The client refuses to set one of them, so the list is what is changed here.
        monkeypatch.setattr(
            "components.mlflow_auth.provider.MLFLOW_DEFAULT_PASSWORDS", ("x", server.password)
        )
        with pytest.raises(errors.DefaultPassword, match="'admin' logs in"):
            AdminProvider().create(admin.connection())

    def test_what_an_earlier_program_declared_is_deleted_with_todays_password(
        self, server: Server, admin: Server, tag: str
    ) -> None:
        name, users, admins = f"{tag}-fay", UserProvider(), AdminProvider()
        old = {**admin.connection(), "server_name": tag}
        state = outs(users.create({**user_props(admin, name), **old}))
        new = {**old, "admin_password": PASSWORD + "-new"}
        admins.check(old, new)
        admins.update(admin.admin, old, new)
        users.delete(name, state)
        with pytest.raises(errors.NotFound):
            server.client().get_user(name)
