"""What the validation makes of answers and failures, without a stack."""

from __future__ import annotations

import json
import subprocess
from io import StringIO
from pathlib import Path

import pytest
from rich.console import Console

from scripts import validate_services as validation
from scripts.validate_services import BLOCKED, FAILED, OK, TRACE, WARNING, Broken, Result, Stack
from tests.unit.mlflow_auth.scripted import Answer, scripted_server

SECRETS = {
    "mlflowAdminPassword": "admin-word",
    "langfuseSecretKey": "sk-lf-word",
    "langfuseUserPassword": "user-word",
    "mlflowUserPasswords": {"ada": "ada-word"},
}


def blamed(**statuses: str) -> dict[str, Result]:
    results = {
        name.replace("_", "-"): Result(name.replace("_", "-"), status, detail="503", hint="h", log=["l"])
        for name, status in statuses.items()
    }
    validation._blame(results)
    return results


def test_what_stands_on_a_broken_store_is_blocked_by_it() -> None:
    results = blamed(langfuse_redis=FAILED, langfuse_web=OK, langfuse_worker=FAILED, langfuse_trace=FAILED)
    assert {name: result.status for name, result in results.items()} == {
        "langfuse-redis": FAILED,
        "langfuse-web": OK,
        "langfuse-worker": BLOCKED,
        TRACE: BLOCKED,
    }
    assert results[TRACE].detail == "by langfuse-redis: 503"
    assert not results[TRACE].log


def test_one_product_is_not_blamed_on_the_other() -> None:
    results = blamed(mlflow_server=FAILED, langfuse_redis=FAILED, mlflow_postgres=OK)
    assert results["mlflow-server"].status == FAILED


def test_with_sound_stores_the_lowest_server_is_the_cause() -> None:
    results = blamed(langfuse_redis=OK, langfuse_worker=FAILED, langfuse_trace=FAILED)
    assert results["langfuse-worker"].status == FAILED
    assert results[TRACE].detail == "by langfuse-worker: 503"


def test_what_is_switched_off_is_not_in_the_result(monkeypatch: pytest.MonkeyPatch) -> None:
    stored = {"State": {"Running": False, "ExitCode": 0, "Status": "exited"}}
    monkeypatch.setattr(validation, "docker", lambda *arguments, **_: json.dumps([stored]))
    results = validation.validate(Stack({"containers": {"mlflow-create-bucket": "x"}}))
    assert [(result.service, result.status) for result in results] == [("mlflow-create-bucket", OK)]


def test_an_unexpected_answer_fails_the_check_and_not_the_program(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(validation, "require_running", lambda name, stack: {})
    monkeypatch.setattr(validation, "docker", lambda *arguments, **_: "not what was asked for")
    (result,) = validation.validate(Stack({"containers": {"mlflow-postgres": "x"}}))
    assert result.status == FAILED
    assert "makes no sense" in result.detail


def test_no_secret_in_details_or_log_lines(monkeypatch: pytest.MonkeyPatch) -> None:
    line = "login with admin-word sk-lf-word user-word ada-word refused"

    def docker(*arguments: str, **_: object) -> str:
        if arguments[0] == "logs":
            return line
        raise Broken(line)

    monkeypatch.setattr(validation, "docker", docker)
    stack = Stack({**SECRETS, "containers": {"mlflow-minio": "x"}})
    (result,) = validation.validate(stack)
    for text in (result.detail, *result.log):
        assert text == "login with *** *** *** *** refused"


def test_no_secret_in_any_process_list(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[str] = []

    def run(command: list[str], **_: object) -> subprocess.CompletedProcess[str]:
        seen.extend(command)
        running = {"State": {"Running": True}, "Config": {"Healthcheck": {"Test": ["CMD", "query"]}}}
        return subprocess.CompletedProcess(command, 0, json.dumps([running]), "")

    monkeypatch.setattr(subprocess, "run", run)
    stores = ("mlflow-postgres", "langfuse-redis", "mlflow-minio", "langfuse-clickhouse")
    validation.validate(Stack({**SECRETS, "containers": {name: name for name in stores}}))
    assert "query" in seen
    assert not [word for word in seen if "-word" in word]


def test_credentials_go_to_no_proxy_where_the_server_is_on_this_machine(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for variable in ("no_proxy", "NO_PROXY"):
        monkeypatch.delenv(variable, raising=False)
    with scripted_server() as server, scripted_server() as proxy:
        server.answers = proxy.answers = [Answer(body="answered")]
        monkeypatch.setenv("http_proxy", proxy.url)
        for name in ("localhost", "127.0.0.1"):
            url = server.url.replace("127.0.0.1", name)
            validation._http("GET", f"{url}/version", auth=("admin", "admin-word"))
        assert (len(server.asked), proxy.asked) == (2, [])
        # Elsewhere it is who runs the machine that says how to get there.
        validation._http("GET", "http://mlflow.example/version")
        assert len(proxy.asked) == 1


def _hint(monkeypatch: pytest.MonkeyPatch, service: str, answer: object, name: str) -> str:
    """What is said to do in stack `name` about a service of which docker answers this."""

    def docker(*arguments: str, **_: object) -> str:
        if isinstance(answer, Broken):
            raise answer
        return json.dumps([{"State": answer}]) if arguments[:2] == ("container", "inspect") else "minio"

    monkeypatch.setattr(validation, "docker", docker)
    containers = {name: f"x-{name}" for name in ("langfuse-minio", "langfuse-init-minio", "mlflow-minio")}
    results = validation.validate(
        Stack({"containers": {service: containers.get(service), **containers}}, name)
    )
    (result,) = (result for result in results if result.service == service)
    assert result.status == FAILED
    return result.hint


_STOPPED = {"Running": False, "Status": "exited", "ExitCode": 137}
_PAUSED = {"Running": True, "Paused": True, "Status": "paused", "ExitCode": 0}


@pytest.mark.parametrize(("name", "more"), [("dev", ""), ("staging", " STACK=staging")])
def test_hints_are_what_helps(monkeypatch: pytest.MonkeyPatch, name: str, more: str) -> None:
    for state in (_PAUSED, _STOPPED):
        hint = _hint(monkeypatch, "langfuse-minio", state, name)
        assert f"`make start{more}`" in hint
        assert f"`make up{more}`" in hint
    gone = Broken("Error: No such container: x-langfuse-minio")
    assert f"`make up{more}`" in _hint(monkeypatch, "langfuse-minio", gone, name)
    assert "start" not in _hint(monkeypatch, "langfuse-minio", gone, name)
    assert f"`make up{more}`" in _hint(monkeypatch, "langfuse-init-minio", _STOPPED, name)
    # What made the buckets has ended well, and runs again only if it is not there.
    hint = _hint(monkeypatch, "langfuse-minio", {"Running": True, "Paused": False}, name)
    assert hint == f"`docker rm x-langfuse-init-minio`, then `make up{more}`"


def test_the_table_fits_80_columns_and_shows_brackets_as_they_are() -> None:
    results = [
        Result("langfuse-clickhouse", FAILED, "26.3.62.3", "x" * 200, "see [this]", ["log [line] " * 9]),
        Result("mlflow-postgres-auth", OK, "17", "written and read; 12 tables, 1.5 GiB"),
    ]
    out = StringIO()
    validation.show(results, {"mlflow-postgres-auth": "1.234GB"}, Console(file=out, width=80))
    shown = out.getvalue()
    assert max(map(len, shown.splitlines())) <= 80
    for text in ("hint: see [this]", "log [line]", "1.234GB", "26.3.62.3"):
        assert text in shown


@pytest.mark.parametrize(("status", "code"), [(OK, 0), (WARNING, 0), (FAILED, 1), (BLOCKED, 1)])
def test_the_exit_code_says_whether_all_works(
    status: str, code: int, tmp_path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "outputs.json"
    file.write_text('{"containers": {"mlflow-server": "mlflow-server"}}')
    monkeypatch.setattr(validation, "validate", lambda stack, patience: [Result("mlflow-server", status)])
    monkeypatch.setattr(validation, "disk", lambda stack: None)
    assert validation.main(["--outputs", str(file), "--json"]) == code
    assert json.loads(capsys.readouterr().out)["ok"] is (code == 0)


def test_a_stack_that_is_not_deployed_is_told_by_its_name(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "outputs.json"
    file.write_text("{}")
    assert validation.main(["--outputs", str(file), "--stack", "staging"]) == 2
    assert "`make up STACK=staging`" in capsys.readouterr().err


@pytest.mark.parametrize("content", ["{", "{}", '{"containers": {}}'])
def test_outputs_that_cannot_be_used_end_with_2(content: str, tmp_path) -> None:
    file = tmp_path / "outputs.json"
    file.write_text(content)
    assert validation.main(["--outputs", str(file)]) == 2
