"""The scripts for people, against real servers: what they change, refuse, print and keep to themselves."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from io import StringIO
from pathlib import Path
from typing import Any

import pytest

from components.mlflow_auth.errors import NotFound
from components.mlflow_auth.permissions import experiment, model
from scripts import manage_mlflow_users as manage
from scripts import setup_mlflow_auth as setup
from scripts.bootstrap.stack import Stack
from tests.integration.mlflow_auth.servers import Server

PASSWORD, SECOND = "a-long-enough-password", "another-long-password"
SCRIPT = Path(manage.__file__)
Run = Callable[..., tuple[int, str, str]]


class Terminal(StringIO):
    """Standard input of somebody who sits there."""

    def isatty(self) -> bool:
        return True


@pytest.fixture
def outputs(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """Outputs of a stack, which tests fill; none at first."""
    outputs: dict[str, Any] = {}
    monkeypatch.setattr(manage.stacks, "outputs", lambda _stack: outputs)
    return outputs


@pytest.fixture
def run(
    server: Server,
    outputs: dict[str, Any],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> Run:
    """Runs a script's `main` as the server's administrator: exit code, standard output, standard error."""
    for name in ("USERNAME", "PASSWORD", "URI"):
        monkeypatch.delenv(f"MLFLOW_TRACKING_{name}", raising=False)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", server.url)
    monkeypatch.setenv("MLFLOW_TRACKING_USERNAME", server.admin)
    monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", server.password)

    def run(
        *arguments: str, stdin: str = "", main: Callable[[list[str]], int] = manage.main
    ) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "stdin", StringIO(stdin))
        code = main([*arguments, "--auth-container", server.auth_container])
        out, err = capsys.readouterr()
        for secret in (server.password, *stdin.split()):
            assert secret not in out + err
        return code, out, err

    return run


def test_life_of_a_user(server: Server, run: Run, tag: str) -> None:
    client, name = server.client(), f"{tag}-ada"
    churn = client.ensure_experiment(f"{tag} churn")

    assert run("create-user", "--username", name, "--password-stdin", stdin=PASSWORD)[0] == 0
    assert client.authenticate(name, PASSWORD)
    code, _, err = run("create-user", "--username", name, "--password-stdin", stdin=PASSWORD)
    assert code == 1
    assert "already" in err
    assert run("change-password", "--username", name, "--password-stdin", stdin=SECOND)[0] == 0
    assert client.authenticate(name, SECOND)
    assert run("promote-user", "--username", name)[0] == 0
    code, out, _ = run("list-users")
    users = client.list_users()
    assert f"👑 ADMIN | {name} (ID: {client.get_user(name).id})" in out.splitlines()
    assert out.splitlines()[-1] == f"Total users: {len(users)}"
    assert run("demote-user", "--username", name)[0] == 0
    assert f"👤 USER  | {name} (ID: " in run("list-users")[1]

    for command in (
        ("grant-exp", "--experiment-name", churn.name, "--permission", "EDIT"),
        ("grant-exp", "--experiment-id", churn.id, "--permission", "MANAGE"),
        ("grant-model", "--model-name", "scores", "--permission", "NO_PERMISSIONS"),
    ):
        assert run(*command, "--username", name)[0] == 0
    assert client.permissions_of(name) == {experiment(churn.id): "MANAGE", model("scores"): "NO_PERMISSIONS"}
    shown = json.loads(run("show-user", "--username", name, "--json")[1])["user"]
    assert shown["experiments"] == [{"id": churn.id, "name": churn.name, "permission": "MANAGE"}]
    assert shown["models"] == [{"name": "scores", "permission": "NO_PERMISSIONS"}]
    for revoke in (("revoke-exp", "--experiment-id", churn.id), ("revoke-model", "--model-name", "scores")):
        assert json.loads(run(*revoke, "--username", name, "--json")[1])["changed"] is True
        assert json.loads(run(*revoke, "--username", name, "--json")[1])["changed"] is False
    assert client.permissions_of(name) == {}

    client.set_permission(name, experiment(churn.id), "READ")
    code, _, err = run("delete-user", "--username", name)
    assert code == 1
    assert "--yes" in err
    assert client.get_user(name)
    assert run("delete-user", "--username", name, "--yes")[0] == 0
    with pytest.raises(NotFound):
        client.get_user(name)


def test_the_stack_is_told_of_its_administrators_new_password(
    server: Server, run: Run, outputs: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    outputs.update(mlflowUrl=server.url, mlflowAdminUsername=server.admin)
    change = ("change-password", "--password-stdin", "--stack", "staging")
    code, _, err = run(*change, stdin=SECOND)
    monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", SECOND)
    assert run(*change, stdin=server.password)[0] == 0
    assert code == 0
    assert "pulumi config set --stack staging --secret mlops-stack:mlflowAdminPassword" in err
    assert "make up STACK=staging" in err


def test_the_last_administrator_stays(server: Server, run: Run, tag: str) -> None:
    client, other = server.client(), f"{tag}-root"
    for user in client.list_users():
        if user.is_admin and user.name != server.admin:
            client.set_admin(user.name, False)
    for command in (("delete-user", "--yes"), ("demote-user",)):
        code, _, err = run(*command, "--username", server.admin)
        assert code == 1
        assert "last administrator" in err
    assert client.get_user(server.admin).is_admin

    client.create_user(other, PASSWORD, is_admin=True)
    code, _, err = run("delete-user", "--yes", "--username", server.admin)
    assert code == 1
    assert "is logged in" in err
    assert run("delete-user", "--yes", "--username", other)[0] == 0


def test_a_dry_run_changes_nothing(server: Server, run: Run, tag: str) -> None:
    client, name = server.client(), f"{tag}-ben"
    client.create_user(name, PASSWORD)
    client.set_permission(name, experiment("0"), "EDIT")
    before = client.list_users()
    for command, user in (
        (("create-user", "--password-stdin"), f"{tag}-new"),
        (("change-password", "--password-stdin"), name),
        (("promote-user",), name),
        (("grant-exp", "--experiment-id", "0", "--permission", "READ"), name),
        (("grant-model", "--model-name", "scores", "--permission", "READ"), name),
        (("revoke-exp", "--experiment-id", "0"), name),
        (("delete-user",), name),
    ):
        stdin = SECOND if "--password-stdin" in command else ""
        code, out, _ = run(*command, "--username", user, "--dry-run", stdin=stdin)
        assert code == 0
        assert "dry run, not done" in out
    assert client.list_users() == before
    assert client.authenticate(name, PASSWORD)
    assert client.permissions_of(name) == {experiment("0"): "EDIT"}
    client.delete_user(name)


def test_the_stack_gives_credentials_to_its_own_server_only(
    server: Server, run: Run, outputs: dict[str, Any], monkeypatch: pytest.MonkeyPatch, tag: str
) -> None:
    client, name = server.client(), f"{tag}-cem"
    for variable in ("MLFLOW_TRACKING_URI", "MLFLOW_TRACKING_USERNAME", "MLFLOW_TRACKING_PASSWORD"):
        monkeypatch.delenv(variable)
    outputs.update(
        mlflowUrl=server.url,
        mlflowAdminUsername=server.admin,
        mlflowAdminPassword=server.password,
        mlflowTeam=[{"name": name}],
    )
    code, out, err = run("create-user", "--username", name, "--password-stdin", "--json", stdin=PASSWORD)
    assert code == 0
    assert json.loads(out)["changed"] is True
    assert "is declared in the stack" in err
    assert "is declared in the stack" in json.loads(out)["warnings"][0]
    outputs["mlflowUrl"] = "http://mlflow.example:5000"
    code, out, err = run("list-users", "--tracking-uri", server.url, "--json")
    assert code == 1
    assert "there is no password" in err
    assert json.loads(out)["error"]["kind"] == "Refusal"
    client.delete_user(name)


def test_errors_are_one_line(server: Server, run: Run, tag: str) -> None:
    for command, why in (
        (("promote-user", "--username", f"{tag}-nobody"), "MLflow does not have it"),
        (("create-user", "--username", f"{tag}-x", "--password-stdin"), "shorter than 12"),
        (
            ("grant-exp", "--experiment-name", f"{tag} none", "--username", "x", "--permission", "READ"),
            "find experiment",
        ),
    ):
        code, out, err = run(*command, stdin="too-short" if "--password-stdin" in command else "")
        assert (code, out) == (1, "")
        assert why in err
        assert len(err.splitlines()) == 1


def test_as_a_program_from_anywhere(server: Server, tmp_path: Path) -> None:
    login = ("--admin-username", server.admin, "--admin-password-stdin", "--stack", "no-such-stack")
    where = ("--tracking-uri", server.url, "--auth-container", server.auth_container)
    done = subprocess.run(
        [sys.executable, str(SCRIPT), "list-users", "--json", *login, *where],
        input=server.password + "\n",
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert server.admin in [user["username"] for user in json.loads(done.stdout)["users"]]
    assert server.password not in done.stdout + done.stderr


def test_as_a_library(server: Server, tag: str) -> None:
    said: list[str] = []
    manager = manage.MLflowUserManager(server.url, auth_container=server.auth_container, say=said.append)
    with pytest.raises(manage.Refusal, match="authenticate"):
        manager.list_users()
    manager.authenticate(server.admin, server.password)
    assert manager.create_user(f"{tag}-eva", PASSWORD)
    assert manager.grant_experiment_permission("0", f"{tag}-eva", "EDIT")
    assert not manager.grant_experiment_permission("0", f"{tag}-eva", "EDIT")
    assert manager.grant_model_permission("scores", f"{tag}-eva", "MANAGE")
    assert f"{tag}-eva" in [user.name for user in manager.list_users()]
    assert manager.delete_user(f"{tag}-eva")
    assert PASSWORD not in "\n".join(said)


def test_set_up_by_flags_twice(server: Server, run: Run, tmp_path: Path, tag: str) -> None:
    client = server.client()
    ada, ben, cem = (f"{tag}-{name}" for name in ("ada", "ben", "cem"))
    team = tmp_path / "team.json"
    team.write_text(
        json.dumps([{"name": cem, "experiments": {f"{tag} churn": "EDIT"}, "models": {"scores": "READ"}}])
    )
    flags = ("--keep-admin-password", "--member", ada, "--admin-member", ben, "--team", str(team))

    code, out, _ = run(*flags, "--dry-run", "--json", main=setup.main)
    assert code == 0
    assert not [user for user in client.list_users() if user.name.startswith(tag)]
    code, out, _ = run(*flags, "--json", main=setup.main)
    assert code == 0
    generated = json.loads(out)["generated_passwords"]
    assert sorted(generated) == [ada, ben, cem]
    roles = {name: client.authenticate(name, password) for name, password in generated.items()}
    assert [name for name, user in roles.items() if user and user.is_admin] == [ben]
    held = {experiment(client.experiment_by_name(f"{tag} churn").id): "EDIT", model("scores"): "READ"}
    assert client.permissions_of(cem) == held

    code, out, _ = run(*flags, "--json", main=setup.main)
    assert code == 0
    assert json.loads(out)["generated_passwords"] == {}
    assert all(client.authenticate(name, password) for name, password in generated.items())
    for name in generated:
        client.delete_user(name)


def test_set_up_guided_and_declared(
    server: Server,
    outputs: dict[str, Any],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tag: str,
) -> None:
    client, ada = server.client(), f"{tag}-ada"
    outputs.update(mlflowUrl=server.url, mlflowAdminUsername=server.admin)
    written: dict[str, str] = {}
    secrets: set[str] = set()

    class Config(Stack):
        """Where `--write-config` writes; the real one is the deployment's test."""

        def get_config(self, path: str) -> None: ...

        def set_config(self, path: str, value: str, *, secret: bool = False) -> None:
            written[path] = value
            if secret:
                secrets.add(path)

    monkeypatch.setattr(setup, "Stack", Config)
    monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", server.password)
    answers = ["y", ada, "n", "y", f"{tag}-churn=EDIT model:scores=READ", "", "y"]
    monkeypatch.setattr(sys, "stdin", Terminal("\n".join(answers) + "\n"))
    arguments = ["--tracking-uri", server.url, "--admin-username", server.admin]
    assert setup.main([*arguments, "--auth-container", server.auth_container]) == 0
    out, _ = capsys.readouterr()
    password = written["mlflowUsers[0].password"]
    assert f"🔑 {ada}: {password}" in out.splitlines()
    assert server.password not in out
    assert "Run `make up` now" in out
    assert client.authenticate(ada, password)
    assert secrets == {"mlflowUsers[0].password"}
    assert written == {
        "mlflowUsers[0].name": ada,
        "mlflowUsers[0].password": password,
        "mlflowUsers[0].adopt": "true",
        f'mlflowUsers[0].experiments["{tag}-churn"]': "EDIT",
        'mlflowUsers[0].models["scores"]': "READ",
    }
    client.delete_user(ada)
