"""python -m double migrate|serve web|worker: one step of a container's start."""

from __future__ import annotations

import logging
import sys

from . import VERSION, settings
from .problems import StoreProblem


def main(step: str, role: str) -> int:
    line = f"%(asctime)s langfuse-double-{role} %(levelname)s %(message)s"
    logging.basicConfig(level=logging.INFO, format=line)
    # Every request of the S3 client and of health checks is of no interest.
    logging.getLogger("botocore").setLevel(logging.WARNING)
    try:
        checked = settings.load(role)
    except settings.BadEnvironment as problem:
        for line in str(problem).splitlines():
            print(f"Invalid environment: {line}", file=sys.stderr)
        return 1
    if step == "migrate":
        return _migrate(checked)
    _serve(role, checked)
    return 0


def _migrate(checked: settings.Settings) -> int:
    from .clickhouse import ClickHouse
    from .postgres import Postgres

    try:
        postgres = Postgres(checked)
        for store, migrate in (("postgres", postgres.migrate), ("clickhouse", ClickHouse(checked).migrate)):
            logging.info("%s: %d migration(s) applied", store, migrate())
        postgres.initialise(dict(checked.init))
    except StoreProblem as problem:
        logging.error("Applying database migrations failed: %s", problem)
        return 1
    return 0


def _serve(role: str, checked: settings.Settings) -> None:
    import uvicorn

    from . import web

    logging.warning("This is a CONTRACT DOUBLE (%s), not Langfuse: for trials and tests only", VERSION)
    application = web.web(checked) if role == "web" else web.worker(checked)
    uvicorn.run(
        application,
        host=checked.host,
        port=checked.port,
        access_log=False,
        log_config=None,
        server_header=False,
        timeout_keep_alive=110,
        timeout_graceful_shutdown=5,
    )


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
