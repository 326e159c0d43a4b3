"""The minio and mc images keep the official images' contracts."""

from __future__ import annotations

from tests.engine import HARDENED, Container, Engine

SCRIPT = """
set -eu
mc alias set stack "http://$SERVER:9000" "$(cat /run/secrets/user)" "$(cat /run/secrets/password)" >/dev/null
mc mb --ignore-existing stack/kept
"""
PUT = "echo forty-two | mc pipe stack/kept/answer"
GET = "mc cat stack/kept/answer"


def start(engine: Engine, volume: str, password: str) -> Container:
    server = engine.run(
        "minio",
        *HARDENED,
        f"--volume={volume}:/data",
        "--env=MINIO_ROOT_USER_FILE=/run/secrets/user",
        "--env=MINIO_ROOT_PASSWORD_FILE=/run/secrets/password",
        files={"/run/secrets/user": "the-admin", "/run/secrets/password": password},
        command=("server", "/data", "--console-address", ":9001"),
    )
    server.wait_for("curl", "--fail", "http://127.0.0.1:9000/minio/health/live")
    return server


def one_shot(engine: Engine, server: Container, password: str, script: str) -> Container:
    """A run-once container as the stack's bucket maker: /bin/sh with an uploaded script."""
    return engine.run(
        "mc",
        *HARDENED,
        "--entrypoint=/bin/sh",
        f"--env=SERVER={server.name}",
        files={
            "/run/secrets/user": "the-admin",
            "/run/secrets/password": password,
            "/script.sh": SCRIPT + script,
        },
        command=("/script.sh",),
    )


def test_buckets_data_and_shutdown(engine: Engine, password: str) -> None:
    volume = engine.volume()
    server = start(engine, volume, password)
    server.wait_for("mc", "ready", "local")
    made = one_shot(engine, server, password, PUT)
    assert made.exit_code() == 0, made.logs()
    refused = one_shot(engine, server, "a-wrong-password", "")
    assert refused.exit_code() != 0
    assert password not in server.inspect() + server.logs() + made.inspect() + made.logs()
    assert server.stop() == 0

    engine.remove(server)
    again = start(engine, volume, password)
    read = one_shot(engine, again, password, GET)
    assert (read.exit_code(), read.logs().splitlines()[-1]) == (0, "forty-two")
    console = again.exec(
        "curl", "--silent", "--fail", "--output", "/dev/null", "http://127.0.0.1:9001/", check=False
    )
    assert console.returncode == 0


def test_versions_are_the_releases_of_the_tags(engine: Engine) -> None:
    for name, command in (("minio", "--version"), ("mc", "--version")):
        asked = engine.run(name, command=(command,))
        assert asked.exit_code() == 0
        assert engine.image(name).rpartition(":")[2] in asked.logs()


def test_they_have_no_more_tools_than_the_official_images(engine: Engine) -> None:
    lookup = "for tool in sed grep awk find tar; do ! command -v $tool || exit 1; done"
    for name in ("minio", "mc"):
        asked = engine.run(name, "--entrypoint=/bin/sh", command=("-c", lookup))
        assert asked.exit_code() == 0, asked.logs()
