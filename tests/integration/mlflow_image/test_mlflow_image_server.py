"""The built image, as it runs in the stack."""

from __future__ import annotations

import http.client
import json
import secrets
import socket
import time
from base64 import b64encode
from pathlib import Path
from typing import Any

import pytest
import requests

from tests.deployment import run_client
from tests.integration.mlflow_image.stack import TTL, Stack, docker

# Every route of Flask and FastAPI with its methods; parameters are filled in.
_ROUTES = """
import json, re, sys
from mlflow.server import auth
app = auth.create_app()
found = set()
def take(path, methods):
    path = re.sub(r"<[^>]*>|{[^}]*}", "1", path) or "/"
    found.update((path, method) for method in methods or ["GET"])
def walk(routes, prefix=""):
    for route in routes:
        inner = getattr(route, "routes", None)
        if getattr(route, "path", None) and not inner:
            take(prefix + route.path, getattr(route, "methods", None))
        if inner:
            walk(inner, prefix + getattr(route, "path", ""))
from mlflow.server import app as flask_app
for rule in flask_app.url_map.iter_rules():
    take(rule.rule, rule.methods)
if app is not flask_app:
    walk(app.routes)
    for path, operations in app.openapi()["paths"].items():
        take(path, [method.upper() for method in operations])
print("ANSWER" + json.dumps(sorted(found)))
"""

# What a process of the image waits for at most, as libpq and boto3 understood it.
_WAITS = """
import json, boto3
from mlflow.server import auth
from mlflow_stack_auth import app
app._mlflow()
database = auth.store.engine.raw_connection().driver_connection.info.dsn_parameters
s3 = boto3.client("s3", endpoint_url=os.environ["MLFLOW_S3_ENDPOINT_URL"]).meta.config
print("ANSWER" + json.dumps([database["connect_timeout"], database["tcp_user_timeout"], s3.connect_timeout, s3.read_timeout]))
"""


def in_server(stack: Stack, program: str) -> Any:
    """What a program prints as JSON after ANSWER that runs in the server's container, with its whole environment."""
    environment = (
        "import os; os.environ.update(s.settings(os.environ, s._secrets(), tuple(map(int, %r.split('.')))))"
    )
    whole = f"import mlflow_stack_auth.serve as s; {environment % stack.version}\n{program}"
    said = docker("exec", stack.name("server"), "python", "-c", whole)
    return json.loads(said.partition("ANSWER")[2])


def routes(stack: Stack) -> list[tuple[str, str]]:
    return in_server(stack, _ROUTES)


def user(stack: Stack, password: str) -> str:
    name = f"u-{secrets.token_hex(4)}"
    made = stack.api("POST", "/api/2.0/mlflow/users/create", json={"username": name, "password": password})
    assert made.status_code == 200, made.text
    return name


def status(stack: Stack, name: str, password: str) -> int:
    path = "/api/2.0/mlflow/users/get"
    return stack.api("GET", path, params={"username": name}, auth=(name, password)).status_code


def test_a_stranger_gets_401_on_every_route_but_health(stack: Stack) -> None:
    found = routes(stack)
    extra = [
        "/v1/traces",
        "/docs",
        "/openapi.json",
        "/graphql",
        "/signup",
        "/",
        "/static-files/index.html",
        "//health",
    ]
    found += [(path, method) for path in extra for method in ("GET", "POST")]
    assert len(found) > 150
    session = requests.Session()
    open_routes = set()
    for path, method in found:
        answer = session.request(method, stack.url + path, json={} if method != "GET" else None, timeout=30)
        if answer.status_code != 401:
            open_routes.add((path, method, answer.status_code))
    assert {(path, method) for path, method, _ in open_routes} <= {("/health", "GET"), ("/health", "HEAD")}
    assert ("/health", "GET", 200) in open_routes


def test_the_refusal_of_a_head_request_has_no_body(stack: Stack) -> None:
    with socket.create_connection(("127.0.0.1", stack.port), timeout=30) as connection:
        connection.sendall(b"HEAD /version HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
        answer = b"".join(iter(lambda: connection.recv(65536), b""))
    assert answer.split(None, 2)[1] == b"401"
    assert answer.endswith(b"\r\n\r\n")


def test_credentials_open_the_api_the_pages_and_the_version(stack: Stack) -> None:
    assert stack.api("GET", "/version").text == stack.version
    assert "<html" in stack.api("GET", "/").text.lower()
    assert stack.api("POST", "/api/2.0/mlflow/experiments/search", json={"max_results": 1}).status_code == 200


@pytest.mark.parametrize(
    "host", ["evil.example", "mlflow.example.evil.example", "127.0.0.1.evil.example:5000"]
)
def test_a_forged_host_is_refused_even_with_credentials(stack: Stack, host: str) -> None:
    assert stack.api("GET", "/version", headers={"Host": host}).status_code == 403


def test_a_second_authorization_header_makes_nobody_the_administrator(stack: Stack) -> None:
    password = secrets.token_urlsafe(16)
    mine = b64encode(f"{user(stack, password)}:{password}".encode()).decode()
    theirs = b64encode(b"admin:wrong-password").decode()
    path = "/api/2.0/mlflow/users/get?username=admin"
    for order in ((mine, theirs), (theirs, mine)):
        connection = http.client.HTTPConnection("127.0.0.1", stack.port, timeout=30)
        for target in (path, "/ajax-api/3.0/mlflow/users/current", "/v1/traces"):
            connection.putrequest("POST" if target == "/v1/traces" else "GET", target)
            for header in order:
                connection.putheader("Authorization", f"Basic {header}")
            connection.endheaders()
            answer = connection.getresponse()
            answer.read()
            assert answer.status in (400, 401)
        connection.close()


def test_an_allowed_host_is_answered(stack: Stack) -> None:
    assert stack.api("GET", "/version", headers={"Host": "mlflow.example:8443"}).status_code == 200


def test_a_foreign_page_cannot_change_anything(stack: Stack) -> None:
    path, body = "/api/2.0/mlflow/experiments/create", {"name": f"e-{secrets.token_hex(4)}"}
    assert stack.api("POST", path, json=body, headers={"Origin": "https://evil.example"}).status_code == 403
    assert stack.api("POST", path, json=body, headers={"Origin": stack.url}).status_code == 200


def test_guesses_are_limited_and_lock_nobody_out_who_is_known(stack: Stack) -> None:
    password = secrets.token_urlsafe(16)
    name = user(stack, password)
    assert status(stack, name, password) == 200
    answers = [status(stack, name, f"wrong-password-{n}") for n in range(14)]
    assert answers[0] == 401
    assert 429 in answers
    refused = stack.api("GET", "/version", auth=(name, "wrong-again"))
    assert refused.status_code == 429
    assert int(refused.headers["Retry-After"]) > 0
    time.sleep(TTL)  # the credentials' own time is over as well
    assert status(stack, name, password) == 200
    assert stack.api("GET", "/version").status_code == 200


def test_an_old_password_stops_at_once_where_it_was_changed(stack: Stack) -> None:
    old, new = secrets.token_urlsafe(16), secrets.token_urlsafe(16)
    name = user(stack, old)
    assert status(stack, name, old) == 200
    body = {"username": name, "password": new}
    assert stack.api("PATCH", "/api/2.0/mlflow/users/update-password", json=body).status_code == 200
    assert (status(stack, name, old), status(stack, name, new)) == (401, 200)
    assert stack.api("DELETE", "/api/2.0/mlflow/users/delete", json={"username": name}).status_code == 200
    assert status(stack, name, new) == 401


def test_a_password_changed_behind_its_back_stops_within_the_ttl(stack: Stack) -> None:
    first, second = secrets.token_urlsafe(16), secrets.token_urlsafe(16)
    name, donor = user(stack, first), user(stack, second)
    assert status(stack, name, first) == 200
    swap = (
        f"update users set password_hash = (select password_hash from users where username = '{donor}')"
        f" where username = '{name}'"
    )
    docker("exec", stack.name("auth"), "psql", "-h", "127.0.0.1", "-U", "mlflow", "-c", swap)
    changed = time.monotonic()
    stack.wait(lambda: str(status(stack, name, first)), "401", seconds=30)
    assert status(stack, name, second) == 200
    assert time.monotonic() - changed < TTL + 25


def test_a_client_logs_a_run_and_reads_its_artifact_back(
    stack: Stack, client_python: Path, tmp_path: Path
) -> None:
    program = """
import mlflow, pathlib, tempfile
mlflow.set_experiment("image")
with mlflow.start_run() as run:
    mlflow.log_metric("loss", 0.5)
    mlflow.log_text("kept", "notes/kept.txt")
path = mlflow.artifacts.download_artifacts(run_id=run.info.run_id, artifact_path="notes/kept.txt")
print(mlflow.get_run(run.info.run_id).data.metrics["loss"], pathlib.Path(path).read_text(), run.info.artifact_uri)
"""
    variables = {
        "MLFLOW_TRACKING_URI": stack.url,
        "MLFLOW_TRACKING_USERNAME": stack.admin[0],
        "MLFLOW_TRACKING_PASSWORD": stack.admin[1],
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "MLFLOW_HTTP_REQUEST_TIMEOUT": "30",
    }
    printed = run_client(client_python, "-c", program, variables=variables, cwd=tmp_path)
    assert "0.5 kept mlflow-artifacts:/" in printed
    assert "kept.txt" in docker("exec", stack.name("minio"), "ls", "-R", "/data/mlflow")


def test_no_secret_is_seen_from_outside(stack: Stack) -> None:
    name = stack.name("server")
    seen = {
        "inspect": docker("inspect", name),
        "processes": docker("top", name, "-eo", "pid,args"),
        "logs": docker("logs", name),
        "image": docker("history", "--no-trunc", stack.image),
    }
    assert "mlflow_stack_auth" in seen["processes"]
    for secret in stack.secrets.values():
        assert [where for where, text in seen.items() if secret in text] == []


def test_the_server_runs_as_nobody_special(stack: Stack) -> None:
    assert docker("exec", stack.name("server"), "id", "-u").strip() == "10001"


def test_stores_that_do_not_answer_are_given_up(stack: Stack) -> None:
    assert in_server(stack, _WAITS) == ["5", "10000", 5, 30]


def test_health_tells_of_a_stopped_database(stack: Stack) -> None:
    health = ("exec", stack.name("server"), "mlflow-stack-health")
    docker("pause", stack.name("auth"))
    try:
        assert "auth database" in docker(*health, check=False)
    finally:
        docker("unpause", stack.name("auth"))
    stack.wait(lambda: docker(*health, check=False), "healthy")


def test_a_schema_of_a_newer_mlflow_is_refused(stack: Stack) -> None:
    psql = ("exec", stack.name("tracking"), "psql", "-h", "127.0.0.1", "-U", "mlflow", "-tAc")
    revision = docker(*psql, "select version_num from alembic_version").strip()
    docker(*psql, "update alembic_version set version_num = 'ffffffffffff'")
    try:
        stack.serve("newer")
        assert docker("wait", stack.name("newer")).strip() == "1"
        said = docker("logs", stack.name("newer"))
        assert "a newer MLflow has used it" in said
        assert "Traceback" not in said
    finally:
        docker(*psql, f"update alembic_version set version_num = '{revision}'")


def test_sigterm_stops_the_server_in_seconds(stack: Stack) -> None:
    """Last: it stops the server. docker kills what is still there after the time given, with status 137."""
    docker("stop", "--time", "30", stack.name("server"))
    state = json.loads(docker("inspect", "--format", "{{json .State}}", stack.name("server")))
    assert state["ExitCode"] in (0, 143)
    assert not state["OOMKilled"]
