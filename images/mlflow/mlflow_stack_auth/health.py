"""The container's health: the server answers, and so do both of its databases."""

from __future__ import annotations

import configparser
import os
import sys
import urllib.request

import psycopg2

from mlflow_stack_auth.places import SECRETS

_SECONDS = 4


def _database_answers(uri: str) -> None:
    scheme, _, rest = uri.partition("://")
    if scheme.partition("+")[0] not in ("postgresql", "postgres"):
        return
    connection = psycopg2.connect(f"postgresql://{rest}", connect_timeout=_SECONDS)
    try:
        with connection.cursor() as cursor:
            cursor.execute("SELECT 1")
    finally:
        connection.close()


def _tracking_uri() -> str:
    file = SECRETS / "MLFLOW_BACKEND_STORE_URI"
    return file.read_text().strip() if file.is_file() else os.environ["MLFLOW_BACKEND_STORE_URI"]


def _auth_uri() -> str:
    config = configparser.ConfigParser()
    config.read(os.environ["MLFLOW_AUTH_CONFIG_PATH"])
    return config["mlflow"]["database_uri"]


def main() -> int:
    """0 if all answer."""
    for name, check in {
        "server": lambda: urllib.request.urlopen("http://127.0.0.1:5000/health", timeout=_SECONDS).close(),
        "tracking database": lambda: _database_answers(_tracking_uri()),
        "auth database": lambda: _database_answers(_auth_uri()),
    }.items():
        try:
            check()
        except Exception as error:
            # The text of an error may name more than who reads the health log should know.
            print(f"{name}: {type(error).__name__}")
            return 1
    print("healthy")
    return 0


if __name__ == "__main__":
    sys.exit(main())
