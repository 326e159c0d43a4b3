"""Brings both databases to the schema of this MLflow, once, before any worker runs."""

from __future__ import annotations

import sys

from alembic.script import ScriptDirectory
from mlflow.server import auth
from mlflow.server.auth.db import utils as auth_db
from mlflow.store.db import utils as tracking_db
from mlflow.version import VERSION
from sqlalchemy import Engine, inspect, text
from sqlalchemy.engine import make_url

from mlflow_stack_auth.given import StartError, required


def refuse_newer(engine: Engine, scripts: ScriptDirectory, version_table: str, what: str) -> str | None:
    """The schema's revision; an error if this MLflow has never heard of it."""
    if not inspect(engine).has_table(version_table):
        return None
    with engine.connect() as connection:
        revision = connection.execute(text(f"SELECT version_num FROM {version_table}")).scalar()
    known = {script.revision for script in scripts.walk_revisions()}
    if revision is not None and revision not in known:
        raise StartError(
            f"The {what} database has schema {revision}, which MLflow {VERSION} does not know: a newer MLflow "
            "has used it. Go back to that version, or restore a backup from before the upgrade."
        )
    return revision


def _tracking() -> None:
    engine = tracking_db.create_sqlalchemy_engine_with_retry(required("MLFLOW_BACKEND_STORE_URI"))
    scripts = ScriptDirectory.from_config(tracking_db._get_alembic_config(""))
    revision = refuse_newer(engine, scripts, "alembic_version", "tracking")
    if revision is None:
        tracking_db._initialize_tables(engine)
    elif revision != scripts.get_current_head():
        print(f"Upgrading the tracking database from schema {revision}.", flush=True)
        tracking_db._upgrade_db(engine)
    engine.dispose()


def _auth() -> None:
    uri = auth.auth_config.database_uri
    if make_url(uri) == make_url(required("MLFLOW_BACKEND_STORE_URI")):
        raise StartError("database_uri of the auth configuration is the tracking database: give it its own.")
    engine = tracking_db.create_sqlalchemy_engine_with_retry(uri)
    scripts = ScriptDirectory.from_config(auth_db._get_alembic_config(""))
    # The name of the version table has changed between versions.
    for table in ("alembic_version_auth", "alembic_version"):
        refuse_newer(engine, scripts, table, "auth")
    engine.dispose()
    auth.store.init_db(uri)
    auth.create_admin_user(auth.auth_config.admin_username, auth.auth_config.admin_password)


def main() -> int:
    """Prepare both; a problem is one line."""
    try:
        _tracking()
        _auth()
    except StartError as problem:
        print(problem, file=sys.stderr)
        return 1
    return 0
