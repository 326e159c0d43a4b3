"""Logs users in against MLflow's auth database: the only place where a password is looked at."""

from __future__ import annotations

import os
from collections.abc import Callable
from contextvars import ContextVar
from pathlib import Path
from typing import Any

from flask import request
from mlflow.server import auth
from mlflow.server.auth.db.models import SqlUser
from sqlalchemy import select
from werkzeug.datastructures import Authorization
from werkzeug.wrappers import Response

from mlflow_stack_auth.credentials import Changes, Credentials, Limiter, TooManyGuesses
from mlflow_stack_auth.gate import UNAUTHENTICATED, Refusal, too_many

admitted: ContextVar[str | None] = ContextVar("admitted", default=None)
"""The `Authorization` header with which the gate let the current request in, so that it is looked at once."""


def _check(username: str, password: str) -> bool:
    # From 3.16 MLflow refuses administrators who still have the default password of old.
    is_old_default = getattr(auth, "_is_disabled_legacy_admin_login", lambda *_: False)
    return auth.store.authenticate_user(username, password) and not is_old_default(username, password)


_changes = Changes(Path("/dev/shm/mlflow-stack-changes"))
_credentials = Credentials(
    _check,
    float(os.environ.get("MLFLOW_AUTH_CACHE_TTL_SECONDS") or 30),
    _changes,
    by_user=Limiter(burst=10, seconds=6),
    # Everybody behind a proxy has its address, hence the wider limit.
    by_address=Limiter(burst=50, seconds=1),
)


def refusal(header: str | None, address: str) -> Refusal | None:
    """Why an `Authorization` header is not enough, or None if it is."""
    sent = Authorization.from_header(header)
    if sent is None or sent.type != "basic" or not sent.username or sent.password is None:
        return UNAUTHENTICATED
    try:
        right = _credentials.valid(sent.username, sent.password, address)
    except TooManyGuesses as guesses:
        return too_many(guesses.retry_after)
    return None if right else UNAUTHENTICATED


def current_user() -> Authorization | Response:
    """Who sends the current Flask request, or the answer that refuses it."""
    header = request.headers.get("Authorization")
    # A header sent twice may reach MLflow as another one than the gate has seen.
    if header is None or header != admitted.get():
        refused = refusal(header, request.remote_addr or "")
        if refused:
            return Response(refused.body, refused.status, refused.all_headers)
    assert request.authorization is not None
    return request.authorization


def ask_less_of_the_database() -> None:
    """Whether the sender is an administrator, which MLflow asks on every request, by one query and always afresh.

    MLflow 3.4.0 loads the user with every permission for it, which takes longer the more somebody owns.
    """
    is_admin = select(SqlUser.is_admin)
    engine = auth.store.engine.execution_options(isolation_level="AUTOCOMMIT")

    def sender_is_admin() -> bool:
        sender = auth.authenticate_request().username
        with engine.connect() as connection:
            return bool(connection.execute(is_admin.where(SqlUser.username == sender)).scalar())

    auth.sender_is_admin = sender_is_admin


def tell_of_changed_users() -> None:
    """A change or removal of a user takes effect at once, in all processes."""
    store = auth.store
    store.update_user = _then_tell(store.update_user)
    store.delete_user = _then_tell(store.delete_user)


def _then_tell(change: Callable[..., Any]) -> Callable[..., Any]:
    def changed(*args: Any, **kwargs: Any) -> Any:
        try:
            return change(*args, **kwargs)
        finally:
            _changes.tell()

    return changed
