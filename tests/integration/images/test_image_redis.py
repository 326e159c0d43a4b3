"""The redis image keeps the official image's contract."""

from __future__ import annotations

from tests.engine import DROPS_PRIVILEGES, HARDENED, Container, Engine

CONFIG = "/usr/local/etc/redis/redis.conf"


def ask(client: Container, password: str, *command: str, host: str = "127.0.0.1") -> str:
    return client.exec(
        "env", f"REDISCLI_AUTH={password}", "redis-cli", "-h", host, *command, check=False
    ).stdout.strip()


def start(engine: Engine, volume: str, password: str) -> Container:
    server = engine.run(
        "redis",
        *HARDENED,
        *DROPS_PRIVILEGES,
        f"--volume={volume}:/data",
        files={
            CONFIG: "include /run/secrets/auth.conf\nappendonly yes\nmaxmemory-policy noeviction\n",
            "/run/secrets/auth.conf": f"requirepass {password}\n",
        },
        command=("redis-server", CONFIG),
    )
    server.wait_for("sh", "-c", f"REDISCLI_AUTH={password} redis-cli ping | grep -q PONG")
    return server


def test_password_data_and_shutdown(engine: Engine, password: str) -> None:
    volume = engine.volume()
    server = start(engine, volume, password)
    assert ask(server, password, "set", "kept", "42") == "OK"
    assert "NOAUTH" in ask(server, "", "get", "kept")
    assert "NOAUTH" in ask(server, "wrong", "get", "kept")
    assert server.server_ids() == (999, 999)
    assert password not in server.inspect() + server.logs()
    assert server.stop() == 0

    engine.remove(server)
    again = start(engine, volume, password)
    client = engine.run("redis", command=("sleep", "600"))
    assert ask(client, password, "get", "kept", host=again.name) == "42"
    assert ask(again, password, "config", "get", "dir").endswith("/data")


def test_without_configuration_it_serves_its_network(engine: Engine) -> None:
    server = engine.run("redis", *HARDENED, "--user=999:999", command=("--databases", "3"))
    server.wait_for("redis-cli", "ping")
    client = engine.run("redis", command=("sleep", "600"))
    assert ask(client, "", "config", "get", "databases", host=server.name) == "databases\n3"
    assert client.server_ids() == (0, 0), "a command other than redis-server is left alone"
