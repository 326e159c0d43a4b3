"""What the resources refuse and compare before any server is asked."""

from __future__ import annotations

from typing import Any

import pytest
from pulumi.runtime import rpc

from components.mlflow_auth import provider as providers
from components.mlflow_auth.errors import Transient
from components.mlflow_auth.provider import (
    AdminProvider,
    ExperimentPermissionProvider,
    ExperimentProvider,
    RegisteredModelPermissionProvider,
    UserProvider,
)
from components.mlflow_auth.transport import Patience
from scripts.manage_mlflow_users import same_server

CONNECTION = {
    "url": "http://127.0.0.1:5000",
    "admin_username": "admin",
    "admin_password": "a-long-enough-password",
    "server_id": "one",
    "server_name": "mlflow",
}
USER = {
    **CONNECTION,
    "username": "ada",
    "password": "another-long-password",
    "is_admin": False,
    "adopt": False,
}
PERMISSION = {**CONNECTION, "username": "ada", "experiment_id": "3", "permission": "EDIT"}
MODEL = {**CONNECTION, "username": "ada", "model_name": "churn", "permission": "EDIT"}
EXPERIMENT = {**CONNECTION, "name": "churn", "create": True, "retain": True, "experiment_id": None}


@pytest.mark.parametrize(
    ("provider", "props", "key", "value", "why"),
    [
        (AdminProvider(), CONNECTION, "admin_password", "password1234", "documentation publishes"),
        (AdminProvider(), CONNECTION, "url", "http://admin:secret-value@host", "carries credentials"),
        (UserProvider(), USER, "password", "too-short", "shorter than 12"),
        (UserProvider(), USER, "username", "admin", "is the administrator of the stack"),
        (UserProvider(), USER, "username", "a/b", "a/b"),
        (
            ExperimentPermissionProvider(),
            PERMISSION,
            "permission",
            "WRITE",
            "READ, EDIT, MANAGE, NO_PERMISSIONS",
        ),
        (ExperimentPermissionProvider(), PERMISSION, "experiment_id", "", "experiment id"),
        (RegisteredModelPermissionProvider(), MODEL, "model_name", "", "model name"),
        (ExperimentProvider(), EXPERIMENT, "name", " ", "1 to 256"),
    ],
)
def test_inputs_that_cannot_be_are_refused(
    provider: Any, props: dict, key: str, value: str, why: str
) -> None:
    assert not provider.check({}, props).failures
    failures = provider.check({}, {**props, key: value}).failures
    assert [failure.property for failure in failures] == [key]
    assert why in failures[0].reason
    assert "secret-value" not in failures[0].reason
    if key.endswith("password"):
        assert value not in failures[0].reason
    # A preview may not know it yet.
    assert not provider.check({}, {**props, key: rpc.UNKNOWN}).failures


@pytest.mark.parametrize(
    ("provider", "props", "in_place", "replaced"),
    [
        (UserProvider(), USER, ("password", "is_admin", "url", "admin_password", "server_id"), ("username",)),
        (
            ExperimentPermissionProvider(),
            PERMISSION,
            ("permission", "server_id"),
            ("username", "experiment_id"),
        ),
        (RegisteredModelPermissionProvider(), MODEL, ("permission", "server_id"), ("username", "model_name")),
        (ExperimentProvider(), EXPERIMENT, ("server_id",), ("name",)),
        (AdminProvider(), CONNECTION, ("admin_password", "url", "server_id"), ("admin_username",)),
    ],
)
def test_what_changes_in_place_and_what_is_replaced(
    provider: Any, props: dict, in_place: tuple[str, ...], replaced: tuple[str, ...]
) -> None:
    same = provider.diff("id", {**props, "user_id": 7}, props)
    assert (same.changes, same.replaces) == (False, [])
    for key in (*in_place, *replaced):
        diff = provider.diff("id", props, {**props, key: "another"})
        assert diff.changes
        assert diff.replaces == ([key] if key in replaced else [])


def test_a_server_that_is_down_changes_no_state(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(providers, "Patience", lambda tries: Patience(tries=tries, first_pause=0.01))
    props = {**USER, "url": "http://127.0.0.1:9", "server_name": "down"}
    read = UserProvider().read("ada", props)
    assert (read.id, read.outs) == ("ada", props)
    with pytest.raises(Transient, match="does not answer"):
        UserProvider().delete("ada", props)


def test_servers_have_several_names() -> None:
    assert same_server("http://localhost:5000", "http://127.0.0.1:5000/")
    assert not same_server("http://localhost:5000", "http://localhost:5001")
    assert not same_server("", "http://localhost:5000")
