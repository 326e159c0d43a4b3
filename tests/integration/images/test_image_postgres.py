"""The postgres image keeps the official image's contract."""

from __future__ import annotations

import gzip
import json
import subprocess

import pytest

from tests.engine import DROPS_PRIVILEGES, HARDENED, Container, Engine

READY = ("pg_isready", "--host=127.0.0.1", "--username=app", "--dbname=shop")
SETTINGS = (
    "--env=POSTGRES_USER=app",
    "--env=POSTGRES_DB=shop",
    "--env=POSTGRES_PASSWORD_FILE=/run/secrets/password",
    "--env=PGDATA=/var/lib/postgresql/data/pgdata",
)


def start(engine: Engine, volume: str, password: str) -> Container:
    server = engine.run(
        "postgres",
        *HARDENED,
        *DROPS_PRIVILEGES,
        *SETTINGS,
        f"--volume={volume}:/var/lib/postgresql/data",
        files={"/run/secrets/password": password},
        command=("-c", "max_connections=33"),
    )
    server.wait_for(*READY)
    return server


def query(client: Container, server: Container, password: str, sql: str) -> subprocess.CompletedProcess[str]:
    """A query from another container: over the network, where the password counts."""
    url = f"postgresql://app@{server.name}/shop"
    return client.exec(
        "env", f"PGPASSWORD={password}", "psql", "--tuples-only", "--no-align", url, "-c", sql, check=False
    )


def test_first_start_restart_and_kept_volume(engine: Engine, password: str) -> None:
    volume = engine.volume()
    client = engine.run("postgres", command=("sleep", "600"))
    server = start(engine, volume, password)

    assert query(client, server, password, "CREATE TABLE kept AS SELECT 42 AS answer").returncode == 0
    assert query(client, server, password, "SHOW max_connections").stdout == "33\n"
    assert query(client, server, password, "SHOW password_encryption").stdout == "scram-sha-256\n"
    refused = query(client, server, "wrong", "SELECT 1")
    assert refused.returncode != 0
    assert "password authentication failed" in refused.stderr

    assert server.server_ids() == (999, 999)
    assert password not in server.inspect() + server.logs()
    assert password not in server.exec("cat", "/proc/1/environ", user="postgres").stdout
    assert server.stop() == 0

    # A new container on the kept volume: the data's own password counts, not the one now given.
    engine.remove(server)
    again = start(engine, volume, "another-password")
    assert query(client, again, password, "SELECT answer FROM kept").stdout == "42\n"
    assert query(client, again, "another-password", "SELECT 1").returncode != 0


def test_init_files_run_once_in_order_and_in_the_database(engine: Engine, password: str) -> None:
    volume = engine.volume()
    files = {
        "/run/secrets/password": password,
        "/docker-entrypoint-initdb.d/1.sql": "CREATE TABLE steps AS SELECT 'sql' AS name",
        "/docker-entrypoint-initdb.d/2.sh": "docker_process_sql -c \"INSERT INTO steps VALUES ('sh')\"",
        "/docker-entrypoint-initdb.d/3.sql.gz": gzip.compress(b"INSERT INTO steps VALUES ('gz')"),
    }
    server = engine.run(
        "postgres",
        *SETTINGS,
        "--env=POSTGRES_INITDB_ARGS=--data-checksums --locale-provider=icu --icu-locale='en'",
        f"--volume={volume}:/var/lib/postgresql/data",
        files=files,
    )
    psql = ("psql", "-U", "app", "-d", "shop", "-tA", "-c")
    for _ in range(2):
        server.wait_for(*READY)
        assert server.exec(*psql, "SELECT string_agg(name, ' ') FROM steps").stdout == "sql sh gz\n"
        assert server.exec(*psql, "SHOW data_checksums").stdout == "on\n"
        assert server.stop() == 0
        server.start()


@pytest.mark.parametrize(
    ("options", "files", "named"),
    [
        ((), {}, "POSTGRES_PASSWORD"),
        (
            ("--env=POSTGRES_PASSWORD_FILE=/run/secrets/password",),
            {"/run/secrets/password": ""},
            "POSTGRES_PASSWORD",
        ),
        (("--env=POSTGRES_PASSWORD_FILE=/nowhere",), {}, "/nowhere"),
        (("--env=POSTGRES_PASSWORD=a", "--env=POSTGRES_PASSWORD_FILE=/nowhere"), {}, "both set"),
    ],
    ids=["no password", "empty file", "no file", "both"],
)
def test_refuses_to_start_without_a_password(
    engine: Engine, options: tuple[str, ...], files: dict[str, str | bytes], named: str
) -> None:
    server = engine.run("postgres", *options, files=files)
    assert server.exit_code() == 1
    assert named in server.logs()


def test_runs_as_any_user_without_capabilities(engine: Engine) -> None:
    server = engine.run(
        "postgres",
        *HARDENED,
        "--user=4321:4321",
        "--env=POSTGRES_HOST_AUTH_METHOD=trust",
        "--env=PGDATA=/var/lib/postgresql/data/pgdata",
    )
    server.wait_for("pg_isready", "--host=127.0.0.1", "--username=postgres")
    assert server.server_ids() == (4321, 4321)


def test_other_commands_are_left_alone(engine: Engine) -> None:
    asked = engine.run("postgres", command=("--version",))
    assert asked.exit_code() == 0
    assert asked.logs().startswith("postgres (PostgreSQL) 15.")
    config = json.loads(asked.inspect())[0]["Config"]
    assert (config["StopSignal"], list(config["Volumes"])) == ("SIGINT", ["/var/lib/postgresql/data"])
    failing = engine.run("postgres", command=("sh", "-c", "id -u; exit 7"))
    assert (failing.exit_code(), failing.logs()) == (7, "0\n")
