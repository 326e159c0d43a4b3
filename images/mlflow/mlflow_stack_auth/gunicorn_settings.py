"""Settings of gunicorn, which serves the versions of MLflow that are one Flask application."""

from __future__ import annotations

import os
from typing import Any

wsgi_app = "mlflow_stack_auth.app:wsgi()"
bind = "0.0.0.0:5000"
workers = int(os.environ["MLFLOW_WORKERS"])
threads = int(os.environ["MLFLOW_THREADS"])
worker_class = "gthread"
worker_tmp_dir = "/dev/shm"
# Long enough for a model of gigabytes on its way to the artifact store.
timeout = 600
graceful_timeout = 8
keepalive = 30
# One import for all workers: the pages of the code are shared.
preload_app = True


def post_fork(server: Any, worker: Any) -> None:
    """A connection belongs to the process that opened it."""
    from mlflow.server import auth

    auth.store.engine.dispose(close=False)
