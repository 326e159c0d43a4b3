"""Who may do what, tried with the real mlflow client. The table in docs/users.md is this one."""

from __future__ import annotations

import json
import re
from pathlib import Path

from components.mlflow_auth.permissions import experiment, model
from tests.integration.mlflow_auth.servers import Server

ROLES = ("admin", "owner", "EDIT", "READ", "NO_PERMISSIONS", "stranger")
CLIENT = Path(__file__).with_name("matrix_client.py")
PASSWORD = "a-long-enough-password"

# The first letter of each role that may. "Owner" stands for MANAGE, which creators are given; the default permission is READ.
EXPECTED = {
    "read experiment": "a o E R - s",
    "find experiment": "a o E R - s",
    "read run": "a o E R - s",
    "read artifact": "a o E R - s",
    "log run": "a o E - - -",
    "rename experiment": "a o E - - -",
    "read model": "a o E R - s",
    "register version": "a o E - - -",
    "stage version": "a o E - - -",
    "set alias": "a o E - - -",
    "grant": "a o - - - -",
    "list users": "a - - - - -",
    "create user": "a - - - - -",
    "promote oneself": "a - - - - -",
    "create experiment": "a o E R N s",
    "delete run": "a o - - - -",
    "delete model version": "a o - - - -",
    "delete model": "a o - - - -",
    "delete experiment": "a o - - - -",
}
# From 3.10 on, who logs in may read the names and roles of all users.
SINCE_3_10 = {"list users": "a o E R N s"}
DOCS = Path(__file__).parents[3] / "docs" / "users.md"


def test_roles_by_actions(server: Server, tag: str) -> None:
    client = server.client()
    users = {role: (f"{tag}-{role.lower().replace('_', '-')}", PASSWORD) for role in (*ROLES, "other")}
    for role, (name, password) in users.items():
        client.create_user(name, password, is_admin=role == "admin")
    common = {"users": users, "tag": tag}
    things = json.loads(server.run_client(CLIENT, json.dumps({**common, "prepare": ROLES})))
    for level in ("EDIT", "READ", "NO_PERMISSIONS"):
        client.set_permission(users[level][0], experiment(things[level]["experiment"]), level)
        client.set_permission(users[level][0], model(things[level]["model"]), level)

    given = {**common, "things": things, "other": users["other"][0]}
    found = json.loads(server.run_client(CLIENT, json.dumps(given)))
    for name, _ in users.values():
        client.delete_user(name)

    table = {
        action: " ".join(
            {"yes": role[0], "no": "-"}.get(found[role][action], found[role][action]) for role in ROLES
        )
        for action in found["admin"]
    }
    assert table == EXPECTED | (SINCE_3_10 if client.version >= (3, 10) else {})


def test_the_documentation_says_the_same() -> None:
    rows = re.findall(
        r"^\| (?P<action>[^|]+?) +\| (?P<cells>(?:(?:yes|no)[^|]*\| ?){6})$", DOCS.read_text(), re.MULTILINE
    )
    documented = {
        action: " ".join(
            role[0] if cell.startswith("yes") else "-"
            for role, cell in zip(ROLES, re.findall(r"(?:yes|no)[^|]*", cells), strict=True)
        )
        for action, cells in rows
    }
    assert documented == EXPECTED
