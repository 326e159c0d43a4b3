"""The server's applications: MLflow's own, behind the gate."""

from __future__ import annotations

import os
from collections.abc import Awaitable, Callable, Iterable, MutableMapping
from typing import Any

import anyio
from mlflow.server.auth import create_app

from mlflow_stack_auth import artifact_store, login
from mlflow_stack_auth.gate import Gate, Request

Environ = dict[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]


def _gate() -> Gate:
    return Gate(
        login.refusal,
        hosts=os.environ.get("MLFLOW_SERVER_ALLOWED_HOSTS", ""),
        origins=os.environ.get("MLFLOW_SERVER_CORS_ALLOWED_ORIGINS", ""),
    )


def _joined(headers: Iterable[tuple[bytes, bytes]]) -> dict[str, str]:
    """Headers by name; one that is sent twice is both, as in WSGI, and so no longer a valid one."""
    joined: dict[str, str] = {}
    for raw_name, raw_value in headers:
        name, value = raw_name.decode("latin-1"), raw_value.decode("latin-1")
        joined[name] = f"{joined[name]},{value}" if name in joined else value
    return joined


def _mlflow() -> tuple[Any, Gate]:
    """MLflow's application and the gate before it, with what is changed about MLflow."""
    artifact_store.give_up_in_time()
    app = create_app()
    login.tell_of_changed_users()
    return app, _gate()


def wsgi() -> Callable[[Environ, Callable[..., Any]], Iterable[bytes]]:
    """The application of gunicorn."""
    app, gate = _mlflow()
    login.ask_less_of_the_database()

    def guarded(environ: Environ, start_response: Callable[..., Any]) -> Iterable[bytes]:
        headers = {
            name: environ[key]
            for name in ("host", "origin", "authorization")
            if (key := f"HTTP_{name.upper()}") in environ
        }
        request = Request(
            method=environ["REQUEST_METHOD"],
            path=environ.get("PATH_INFO", ""),
            address=environ.get("REMOTE_ADDR", ""),
            headers=headers,
        )
        refused = gate.refusal(request)
        if refused:
            start_response(refused.status, refused.all_headers)
            # gunicorn sends what it gets; after a HEAD it would be read as the next answer's beginning.
            return [] if request.method == "HEAD" else [refused.body]
        token = login.admitted.set(request.headers.get("authorization"))
        try:
            return app(environ, start_response)
        finally:
            login.admitted.reset(token)

    return guarded


def asgi() -> Callable[[Message, Receive, Send], Awaitable[None]]:
    """The application of uvicorn."""
    app, gate = _mlflow()

    async def guarded(scope: Message, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            return await app(scope, receive, send)
        request = Request(
            method=scope.get("method", "GET"),
            path=scope["path"],
            address=(scope.get("client") or ("",))[0],
            headers=_joined(scope["headers"]),
        )
        # Looking at a password takes long and must not hold up the event loop.
        refused = await anyio.to_thread.run_sync(gate.refusal, request)
        if refused is None:
            token = login.admitted.set(request.headers.get("authorization"))
            try:
                return await app(scope, receive, send)
            finally:
                login.admitted.reset(token)
        if scope["type"] == "websocket":
            return await send({"type": "websocket.close", "code": 1008})
        headers = [(name.lower().encode(), value.encode()) for name, value in refused.all_headers]
        await send({"type": "http.response.start", "status": int(refused.status[:3]), "headers": headers})
        await send({"type": "http.response.body", "body": refused.body})

    return guarded
