"""MLflow's users read from its authentication database: before 3.10 no route lists them."""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Callable

from components.mlflow_auth.client import User
from components.mlflow_auth.errors import Unsupported

# Runs inside the container, over its local socket. The password comes from the file that the container itself was started
# with, so it is in no argument list.
_SCRIPT = """
if [ -r "${POSTGRES_PASSWORD_FILE:-}" ]; then PGPASSWORD=$(cat "$POSTGRES_PASSWORD_FILE"); export PGPASSWORD; fi
exec psql -X -A -t -q -v ON_ERROR_STOP=1 -U "${POSTGRES_USER:-postgres}" -d "${POSTGRES_DB:-${POSTGRES_USER:-postgres}}"
"""
_QUERY = """
select coalesce(json_agg(json_build_object('id', id, 'name', username, 'admin', is_admin) order by id), '[]') from users;
"""


def user_lister(container: str, *, docker: str = "docker", timeout: float = 30.0) -> Callable[[], list[User]]:
    """A function that lists the users in the Postgres of `container`, by the docker client's own settings."""
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,127}", container):
        raise ValueError(f"{container!r} is not a container name; give the name that `docker ps` shows")

    def users() -> list[User]:
        command = [docker, "exec", "-i", container, "sh", "-c", _SCRIPT]
        fix = "name the container of MLflow's authentication database (--auth-container)"
        try:
            done = subprocess.run(
                command, input=_QUERY, capture_output=True, text=True, timeout=timeout, check=False
            )
        except FileNotFoundError:
            raise Unsupported(
                f"cannot list users: there is no {docker} client to reach {container!r}; install it"
            ) from None
        except subprocess.TimeoutExpired:
            raise Unsupported(
                f"cannot list users: {container!r} did not answer in {timeout:g} s; {fix}"
            ) from None
        if done.returncode != 0:
            reason = (done.stderr.strip().splitlines() or ["no reason given"])[-1][:200]
            raise Unsupported(f"cannot list users in container {container!r}: {reason}; {fix}")
        return [User(row["name"], bool(row["admin"]), row["id"]) for row in json.loads(done.stdout)]

    return users
