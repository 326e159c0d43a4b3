"""The container's health: the server answers, and so do both of its databases.

While the server starts it is asked often, on a machine that is busy enough: nothing is imported before it is needed.
"""

from __future__ import annotations

import os
import sys
from http.client import HTTPConnection

from mlflow_stack_auth.given import SECRETS

_SECONDS = 4


def _server_answers() -> None:
    connection = HTTPConnection("127.0.0.1", 5000, timeout=_SECONDS)
    connection.request("GET", "/health")
    answer = connection.getresponse()
    if answer.status != 200:
        raise ConnectionError(f"HTTP {answer.status}")


def _database_answers(uri: str) -> None:
    import psycopg2

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
    import configparser

    config = configparser.ConfigParser()
    config.read(os.environ["MLFLOW_AUTH_CONFIG_PATH"])
    return config["mlflow"]["database_uri"]


def main() -> int:
    """0 if all answer."""
    for name, check in {
        "server": _server_answers,
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
