"""Settings that are right, what becomes of them, and the files that are made from them."""

from __future__ import annotations

import json
from typing import Any

import pytest

from components.settings import PROJECT, Settings, TeamMember, advice, each, load, published_ports
from scripts.machine.paths import ROOT
from scripts.settings_table import up_to_date

TAKEN: list[tuple[str, Any]] = [
    *[("namePrefix", value) for value in ("", "team-a-", "x-", "1-")],
    *[("bindAddress", value) for value in ("0.0.0.0", "::1", "192.168.1.5")],
    *[
        ("registryMirror", value)
        for value in ("", "registry.example.com", "registry.example.com:5000/mirror")
    ],
    *[
        ("images", {"postgres": value})
        for value in ("postgres:17.6", "r.example.com:5000/a/b:1", f"p@sha256:{'a' * 64}")
    ],
    *[("mlflowMemory", value) for value in ("512m", "2g", "64m")],
    *[("mlflowPort", value) for value in (1, 80, 65535)],
    *[("mlflowPublicUrl", value) for value in ("", "https://mlflow.example.com", "http://10.0.0.1:8080")],
    *[("mlflowAllowedHosts", value) for value in ([], ["a.example.com", "b:8080"])],
    *[
        ("mlflowAdminPassword", value)
        for value in (
            "",
            "twelve chars",
            'quo"ted;#=[pass]word',
            "a:b@c/d?e&f!",
            "50%-off-for-ever",
            "1" * 12,
        )
    ],
    *[("mlflowBucket", value) for value in ("abc", "a.b-c", "a" * 63)],
    ("mlflowDatabaseUrl", "postgresql+psycopg2://u:p%40ss@db.example.com:5432/mlflow?sslmode=require"),
    *[("langfuseVersion", value) for value in ("3.225.4", "3.0.0")],
    *[("langfuseEncryptionKey", value) for value in ("", "0" * 64, "AbCdEf01" * 8)],
    *[("langfuseSalt", value) for value in ("", "MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIzNDU2Nzg5MDE=")],
    *[("langfuseEventsPrefix", value) for value in ("", "a/", "a/b/")],
    *[("langfuseUserEmail", value) for value in ("ada@example.com", "a.b+c@sub.example.org")],
    *[("langfuseRedisUrl", value) for value in ("redis://:p@h:6379", "rediss://u:p@h:6380/0")],
]


def _load(**given: Any) -> Settings:
    raw = {
        f"{PROJECT}:{key}": value if isinstance(value, str) else json.dumps(value)
        for key, value in given.items()
    }
    return load(raw, list(raw))


@pytest.mark.parametrize(("key", "value"), TAKEN)
def test_a_right_value_is_taken(key: str, value: Any) -> None:
    _load(**{key: value})


@pytest.mark.parametrize(
    ("given", "named"),
    [
        ({}, []),
        ({"bindAddress": "192.0.2.7"}, []),
        ({"bindAddress": "0.0.0.0"}, ["mlflowPublicUrl", "langfusePublicUrl", "langfuseMediaUrl"]),
        ({"bindAddress": "::", "langfuseEnabled": False}, ["mlflowPublicUrl"]),
        ({"bindAddress": "::", "mlflowAllowedHosts": ["gpu1:5000"], "langfuseEnabled": False}, []),
    ],
)
def test_addresses_that_were_forgotten_are_asked_for(given: dict[str, Any], named: list[str]) -> None:
    text = "".join(advice(_load(**given)))
    wanted = "mlflowPublicUrl", "langfusePublicUrl", "langfuseMediaUrl"
    assert [key for key in wanted if key in text] == named


def test_without_settings_the_defaults_make_a_stack() -> None:
    settings = load({})
    assert published_ports(settings) == {"mlflowPort": 5000, "langfusePort": 3000, "langfuseMinioPort": 9090}
    assert (settings.mlflow.version, settings.mlflow.memory) == ("3.4.0", 2048)


def test_a_switched_off_product_publishes_nothing() -> None:
    assert set(published_ports(_load(langfuseEnabled=False))) == {"mlflowPort"}


def test_a_team_becomes_members() -> None:
    team = [
        {"name": "alice", "admin": True, "password": "a-long-password"},
        {"name": "bob", "models": {"m": "EDIT"}},
    ]
    assert _load(mlflowUsers=team).mlflow.users == (
        TeamMember(name="alice", admin=True, password="a-long-password"),
        TeamMember(name="bob", models={"m": "EDIT"}),
    )


def test_no_secret_shows_in_a_representation() -> None:
    given = {key: "a-secret-to-hide" for key, _, item in each() if item.metadata["secret"] and "Flask" in key}
    given = {key: value * 3 for key, value in given.items()}
    assert given
    assert "to-hide" not in repr(_load(**given, mlflowUsers=[{"name": "a", "password": "secret-to-hide"}]))


@pytest.mark.parametrize("name", ["Pulumi.yaml", "README.md"])
def test_the_files_made_from_the_settings_are_up_to_date(name: str) -> None:
    text = (ROOT / name).read_text(encoding="utf-8")
    assert text == up_to_date(name, text), "run python -m scripts.settings_table"
