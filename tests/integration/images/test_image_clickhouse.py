"""The clickhouse image keeps the official image's contract."""

from __future__ import annotations

import hashlib
import subprocess

from tests.engine import DROPS_PRIVILEGES, HARDENED, Container, Engine

ROOT = "/etc/clickhouse-server"


def ask(
    client: Container, server: Container, user: str, password: str, sql: str
) -> subprocess.CompletedProcess[str]:
    """A query over HTTP from another container, as the products make them."""
    return client.exec(
        "wget",
        "--quiet",
        "--output-document=-",
        f"--header=X-ClickHouse-User: {user}",
        f"--header=X-ClickHouse-Key: {password}",
        f"--post-data={sql}",
        f"http://{server.name}:8123/",
        check=False,
    )


def start(engine: Engine, volume: str, password: str) -> Container:
    digest = hashlib.sha256(password.encode()).hexdigest()
    user = (
        f"<profile>default</profile><quota>default</quota><password_sha256_hex>{digest}</password_sha256_hex>"
    )
    server = engine.run(
        "clickhouse",
        *HARDENED,
        *DROPS_PRIVILEGES,
        f"--volume={volume}:/var/lib/clickhouse",
        files={
            f"{ROOT}/users.d/app.xml": f"<clickhouse><users><default remove='remove'/><app>{user}"
            "<networks><ip>::/0</ip></networks></app></users></clickhouse>",
            f"{ROOT}/config.d/app.xml": "<clickhouse><max_concurrent_queries>7</max_concurrent_queries>"
            "<query_log remove='remove'/></clickhouse>",
            "/run/secrets/password": password,
        },
    )
    server.wait_for("wget", "-qO-", "http://127.0.0.1:8123/ping")
    return server


def test_uploaded_user_data_and_shutdown(engine: Engine, password: str) -> None:
    volume = engine.volume()
    client = engine.run("clickhouse", command=("sleep", "600"))
    server = start(engine, volume, password)
    create = "CREATE TABLE kept (answer UInt8) ENGINE = MergeTree ORDER BY answer"
    assert ask(client, server, "app", password, create).returncode == 0
    assert ask(client, server, "app", password, "INSERT INTO kept VALUES (42)").returncode == 0
    assert ask(client, server, "app", "wrong", "SELECT 1").returncode != 0
    assert ask(client, server, "default", "", "SELECT 1").returncode != 0, (
        "users.d is merged: default is removed"
    )
    preprocessed = server.exec("sh", "-c", "cat /var/lib/clickhouse/preprocessed_configs/config.xml").stdout
    assert "<max_concurrent_queries>7<" in preprocessed, "config.d is merged"
    assert server.server_ids() == (101, 101)
    assert password not in server.inspect() + server.logs()
    assert server.stop() == 0

    engine.remove(server)
    again = start(engine, volume, password)
    native = f"CLICKHOUSE_PASSWORD=$(cat /run/secrets/password) clickhouse-client --host {again.name} "
    native += "--user app --query 'SELECT answer FROM kept'"
    assert again.exec("sh", "-c", native).stdout == "42\n"


def test_user_of_the_environment(engine: Engine, password: str) -> None:
    server = engine.run(
        "clickhouse",
        *("--env=CLICKHOUSE_USER=app", "--env=CLICKHOUSE_PASSWORD_FILE=/run/secrets/password"),
        files={"/run/secrets/password": password},
    )
    server.wait_for("wget", "-qO-", "http://127.0.0.1:8123/ping")
    client = engine.run("clickhouse", command=("sleep", "600"))
    assert ask(client, server, "app", password, "SELECT 7").stdout == "7\n"
    assert ask(client, server, "app", "", "SELECT 7").returncode != 0
    assert ask(client, server, "default", "", "SELECT 7").returncode != 0


def test_without_a_user_nobody_comes_in_from_the_network(engine: Engine) -> None:
    server = engine.run("clickhouse", *HARDENED, "--user=101:101")
    server.wait_for("wget", "-qO-", "http://127.0.0.1:8123/ping")
    client = engine.run("clickhouse", command=("sleep", "600"))
    assert ask(client, server, "default", "", "SELECT 7").returncode != 0
    assert server.exec("clickhouse-client", "--query", "SELECT 7").stdout == "7\n"
