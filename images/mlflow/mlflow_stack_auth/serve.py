"""The container's entry: secrets from files, databases prepared, then the server in this very process."""

from __future__ import annotations

import os
import signal
import sys
import traceback
from collections.abc import Mapping
from importlib.metadata import version

from mlflow_stack_auth.given import SECRETS, StartError, required

_COUNTS = {
    "MLFLOW_WORKERS": 2,
    "MLFLOW_THREADS": 8,
    "MLFLOW_DB_POOL_SIZE": 5,
    "MLFLOW_DB_MAX_OVERFLOW": 5,
    "MLFLOW_AUTH_CACHE_TTL_SECONDS": 30,
}
_MAY_BE_ZERO = {"MLFLOW_DB_MAX_OVERFLOW", "MLFLOW_AUTH_CACHE_TTL_SECONDS"}
# The health command asks on loopback; a page that rebinds its name to this address cannot have these names.
_LOOPBACK = "localhost,localhost:*,127.0.0.1,127.0.0.1:*,[::1],[::1]:*"
_FIRST_ASGI_VERSION = (3, 5)


def settings(given: Mapping[str, str], secrets: Mapping[str, str], mlflow: tuple[int, ...]) -> dict[str, str]:
    """The server's whole environment, checked."""
    environment = {**given, **secrets}
    for name, default in _COUNTS.items():
        value = environment.get(name) or str(default)
        if not value.isdecimal() or (int(value) == 0 and name not in _MAY_BE_ZERO):
            raise StartError(f"{name} is {value!r}: give a whole number, e.g. {default}.")
        environment[name] = value
    for name in ("MLFLOW_BACKEND_STORE_URI", "MLFLOW_FLASK_SERVER_SECRET_KEY", "MLFLOW_AUTH_CONFIG_PATH"):
        required(name, environment)
    config = environment["MLFLOW_AUTH_CONFIG_PATH"]
    if not os.access(config, os.R_OK):
        raise StartError(f"MLFLOW_AUTH_CONFIG_PATH is {config!r}: there is no file that I can read.")
    return environment | {
        # What `mlflow server` hands to its workers by the options --backend-store-uri, --serve-artifacts,
        # --artifacts-destination and --default-artifact-root.
        "_MLFLOW_SERVER_FILE_STORE": environment["MLFLOW_BACKEND_STORE_URI"],
        "_MLFLOW_SERVER_SERVE_ARTIFACTS": "true",
        "_MLFLOW_SERVER_ARTIFACT_DESTINATION": required("MLFLOW_ARTIFACTS_DESTINATION", environment),
        "_MLFLOW_SERVER_ARTIFACT_ROOT": "mlflow-artifacts:/",
        "_MLFLOW_SGI_NAME": "uvicorn" if mlflow >= _FIRST_ASGI_VERSION else "gunicorn",
        # The administrator is made by the preparation.
        "_MLFLOW_AUTH_ADMIN_BOOTSTRAPPED": "true",
        "MLFLOW_SQLALCHEMYSTORE_POOL_SIZE": environment["MLFLOW_DB_POOL_SIZE"],
        "MLFLOW_SQLALCHEMYSTORE_MAX_OVERFLOW": environment["MLFLOW_DB_MAX_OVERFLOW"],
        "MLFLOW_SERVER_ALLOWED_HOSTS": ",".join(
            filter(None, [_LOOPBACK, environment.get("MLFLOW_SERVER_ALLOWED_HOSTS")])
        ),
        "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
    }


def command(environment: Mapping[str, str]) -> list[str]:
    """The server's command line, which holds no secret."""
    if environment["_MLFLOW_SGI_NAME"] == "gunicorn":
        return ["gunicorn", "--config", "python:mlflow_stack_auth.gunicorn_settings"]
    return [
        *("uvicorn", "--factory", "mlflow_stack_auth.app:asgi", "--host", "0.0.0.0", "--port", "5000"),
        *("--workers", environment["MLFLOW_WORKERS"], "--timeout-worker-healthcheck", "120"),
        *("--timeout-graceful-shutdown", "8", "--no-access-log", "--no-server-header"),
    ]


def _secrets() -> dict[str, str]:
    files = sorted(SECRETS.iterdir()) if SECRETS.is_dir() else []
    return {file.name: file.read_text().rstrip("\n") for file in files if file.is_file()}


def _stop(signal_number: int, _frame: object) -> None:
    sys.exit(128 + signal_number)


def main() -> int:
    """Start the server, or say why not."""
    # The first process of a container ignores signals that it has no handler for.
    signal.signal(signal.SIGTERM, _stop)
    signal.signal(signal.SIGINT, _stop)
    try:
        mlflow = tuple(int(part) for part in version("mlflow").split(".")[:2])
        environment = settings(os.environ, _secrets(), mlflow)
    except StartError as problem:
        print(problem, file=sys.stderr)
        return 1
    os.environ.update(environment)
    return _prepare() or _serve(command(environment))


def _prepare() -> int:
    """Prepare the databases in a child, so that no connection is open in what forks workers later; its exit code.

    MLflow takes seconds to import, and what is imported here serves gunicorn's workers as well.
    """
    from mlflow_stack_auth import prepare

    if child := os.fork():
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    code = 1
    try:
        code = prepare.main()
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def _serve(arguments: list[str]) -> int:
    if arguments[0] != "gunicorn":
        os.execvp(arguments[0], arguments)
    from gunicorn.app.wsgiapp import WSGIApplication

    sys.argv = arguments
    WSGIApplication("%(prog)s", prog=arguments[0]).run()
    return 0


if __name__ == "__main__":
    sys.exit(main())
