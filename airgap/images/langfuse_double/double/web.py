"""Langfuse's public API as far as SDKs and stacks use it, and the health routes of both halves."""

from __future__ import annotations

import base64
import binascii
import contextlib
import html
import json
import logging
import uuid
from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime
from pathlib import PurePosixPath
from typing import Any

from anyio.to_thread import run_sync
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, Response
from starlette.routing import Route

from . import VERSION, events, otel, queue
from .clickhouse import ClickHouse
from .gzipped import TooLarge, unpacked
from .objects import ObjectStore
from .postgres import Postgres
from .problems import StoreProblem
from .settings import Settings
from .worker import Worker

_log = logging.getLogger("web")
_LARGEST_BODY = 16 << 20
_PAGE = """<!doctype html><meta charset="utf-8"><title>Langfuse contract double</title>
<h1>This is not Langfuse</h1>
<p>It is a contract double ({version}): it takes and serves traces and prompts through the API of Langfuse v3
and has no user interface. Health: <a href="/api/public/health">/api/public/health</a></p><p>{signup}</p>"""


class Api:
    """The routes. Each runs in a thread; `self._project` comes first in those that need API keys."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._postgres = Postgres(settings)
        self._clickhouse = ClickHouse(settings)
        self._objects = ObjectStore(settings.events)
        self._media = ObjectStore(settings.media) if settings.media else None
        redis = queue.connect(settings.redis_host, settings.redis_port, settings.redis_auth)
        self._queues = {name: queue.Queue(redis, name) for name in queue.QUEUES}

    def routes(self) -> list[Route]:
        """Every route, the narrower before the wider."""
        api = "/api/public"
        return [
            _route("GET", "/", self._page),
            _route("POST", "/api/auth/signup", self._signup),
            _route("GET", f"{api}/health", self._health),
            _route("GET", f"{api}/ready", lambda request, body: _healthy()),
            self._keyed("GET", f"{api}/projects", self._projects),
            self._keyed("POST", f"{api}/otel/v1/traces", self._otel, raw=True),
            self._keyed("POST", f"{api}/ingestion", self._ingest),
            self._keyed("GET", f"{api}/traces", self._traces),
            self._keyed("GET", f"{api}/traces/{{id}}", self._trace),
            self._keyed("DELETE", f"{api}/traces/{{id}}", self._delete_trace),
            self._keyed("GET", f"{api}/observations", self._observations),
            self._keyed("GET", f"{api}/observations/{{id}}", self._observation),
            self._keyed("POST", f"{api}/scores", self._add_score),
            self._keyed("GET", f"{api}/v2/scores", self._scores),
            self._keyed("POST", f"{api}/v2/prompts", self._add_prompt),
            self._keyed("GET", f"{api}/v2/prompts", self._prompts),
            self._keyed(
                "PATCH", f"{api}/v2/prompts/{{name:path}}/versions/{{version:int}}", self._label_prompt
            ),
            self._keyed("GET", f"{api}/v2/prompts/{{name:path}}", self._prompt),
            self._keyed("POST", f"{api}/media", self._add_media),
            self._keyed("PATCH", f"{api}/media/{{id}}", self._media_uploaded),
            self._keyed("GET", f"{api}/media/{{id}}", self._get_media),
        ]

    def _keyed(self, method: str, path: str, handler: Callable[..., Any], *, raw: bool = False) -> Route:
        """A route for holders of an API key pair; the handler gets the project first."""

        def with_project(request: Request, body: bytes) -> Any:
            project = self._authenticate(request)
            return handler(project, request, body if raw else _parsed(body))

        return _route(method, path, with_project)

    def _authenticate(self, request: Request) -> dict[str, Any]:
        scheme, _, encoded = request.headers.get("authorization", "").partition(" ")
        if scheme.lower() != "basic":
            raise HTTPException(401, "No authorization header: use Basic with the public and the secret key")
        try:
            public, _, secret = base64.b64decode(encoded, validate=True).decode().partition(":")
        except (binascii.Error, UnicodeDecodeError):
            raise HTTPException(401, "Invalid authorization header") from None
        project = self._postgres.project_of(public, secret)
        if project is None:
            raise HTTPException(401, "Invalid credentials. Confirm that you've configured the correct host.")
        return project

    def _page(self, request: Request, body: bytes) -> Response:
        signup = "Sign-up is disabled." if self._settings.signup_disabled else ""
        return HTMLResponse(_PAGE.format(version=html.escape(VERSION), signup=signup))

    def _signup(self, request: Request, body: bytes) -> Any:
        if self._settings.signup_disabled:
            raise HTTPException(422, "Sign up is disabled.")
        raise HTTPException(501, "A contract double has no users who sign in")

    def _health(self, request: Request, body: bytes) -> Any:
        if request.query_params.get("failIfDatabaseUnavailable") == "true":
            try:
                self._postgres.ping()
            except StoreProblem as problem:
                _log.warning("health: %s", problem)
                return _healthy("Database not available", 503)
        return _healthy()

    def _projects(self, project: dict[str, Any], request: Request, body: Any) -> Any:
        return {
            "data": [
                {
                    "id": project["id"],
                    "name": project["name"],
                    "organization": {"id": project["org_id"], "name": project["org_name"]},
                    "metadata": {},
                    "retentionDays": None,
                }
            ]
        }

    def _otel(self, project: dict[str, Any], request: Request, body: bytes) -> Any:
        try:
            spans = otel.parse(body, request.headers.get("content-type", "").lower())
        except ValueError as error:
            raise HTTPException(400, str(error)) from None
        if spans:
            minute = datetime.now(UTC).strftime("%Y/%m/%d/%H/%M")
            key = f"otel/{project['id']}/{minute}/{uuid.uuid4()}.json"
            self._enqueue(queue.OTEL, project["id"], key, spans)
        return {}

    def _ingest(self, project: dict[str, Any], request: Request, body: Any) -> Any:
        batch = body.get("batch") if isinstance(body, dict) else None
        if not isinstance(batch, list):
            raise HTTPException(400, "Invalid request data: batch must be a list of events")
        successes, errors, accepted = [], [], []
        for event in batch:
            identifier = event.get("id") if isinstance(event, dict) else None
            if problem := events.wrong(event):
                errors.append(
                    {"id": str(identifier), "status": 400, "message": "Invalid event", "error": problem}
                )
                continue
            successes.append({"id": identifier, "status": 201})
            if event["type"] != events.LOG:
                accepted.append(event)
        if accepted:
            self._enqueue(
                queue.INGESTION, project["id"], f"{project['id']}/batch/{uuid.uuid4()}.json", accepted
            )
        return JSONResponse({"successes": successes, "errors": errors}, 207)

    def _enqueue(self, name: str, project: str, key: str, content: Any) -> None:
        """First into S3, then into the queue: what is acknowledged is in both."""
        stored = self._objects.put_json(key, content)
        self._queues[name].add({"projectId": project, "key": stored})

    def _traces(self, project: dict[str, Any], request: Request, body: Any) -> Any:
        wanted = request.query_params
        tags = set(wanted.getlist("tags"))
        named = [name for name in ("name", "userId", "sessionId") if name in wanted]

        def fits(trace: dict[str, Any]) -> bool:
            return (
                all(trace.get(name) == wanted[name] for name in named)
                and tags <= set(trace.get("tags") or [])
                and _within(trace["timestamp"], wanted.get("fromTimestamp"), wanted.get("toTimestamp"))
            )

        found = filter(fits, self._clickhouse.find("traces", project["id"]))
        return _paged(request, [events.show_trace(project["id"], trace) for trace in found])

    def _trace(self, project: dict[str, Any], request: Request, body: Any) -> Any:
        trace_id = request.path_params["id"]
        found = self._clickhouse.find("traces", project["id"], ids=[trace_id])
        if not found:
            raise HTTPException(404, f"Trace {trace_id} not found within authorized project")
        observations, scores = (
            self._clickhouse.find(table, project["id"], trace_id=trace_id)
            for table in ("observations", "scores")
        )
        return events.show_full_trace(project["id"], found[0], observations, scores)

    def _delete_trace(self, project: dict[str, Any], request: Request, body: Any) -> Any:
        self._queues[queue.TRACE_DELETE].add(
            {"projectId": project["id"], "traceId": request.path_params["id"]}
        )
        return {"message": "Trace deleted successfully"}

    def _observations(self, project: dict[str, Any], request: Request, body: Any) -> Any:
        found = self._clickhouse.find(
            "observations", project["id"], trace_id=request.query_params.get("traceId")
        )
        names = ("name", "type", "parentObservationId")
        wanted = {name: request.query_params[name] for name in names if name in request.query_params}
        shown = (events.show_observation(project["id"], one) for one in found)
        return _paged(
            request, [one for one in shown if all(one[name] == value for name, value in wanted.items())]
        )

    def _observation(self, project: dict[str, Any], request: Request, body: Any) -> Any:
        found = self._clickhouse.find("observations", project["id"], ids=[request.path_params["id"]])
        if not found:
            raise HTTPException(404, "Observation not found within authorized project")
        return events.show_observation(project["id"], found[0])

    def _add_score(self, project: dict[str, Any], request: Request, body: Any) -> Any:
        identifier = (body.get("id") if isinstance(body, dict) else None) or str(uuid.uuid4())
        event = {
            "id": str(uuid.uuid4()),
            "type": events.SCORE,
            "timestamp": events.now(),
            "body": body | {"id": identifier} if isinstance(body, dict) else body,
        }
        if problem := events.wrong(event):
            raise HTTPException(400, f"Invalid request data: {problem}")
        self._enqueue(queue.INGESTION, project["id"], f"{project['id']}/score/{identifier}.json", [event])
        return {"id": identifier}

    def _scores(self, project: dict[str, Any], request: Request, body: Any) -> Any:
        found = self._clickhouse.find("scores", project["id"], trace_id=request.query_params.get("traceId"))
        name = request.query_params.get("name")
        return _paged(
            request,
            [events.show_score(project["id"], score) for score in found if name in (None, score["name"])],
        )

    def _add_prompt(self, project: dict[str, Any], request: Request, body: Any) -> Any:
        if not isinstance(body, dict) or not isinstance(body.get("name"), str) or not body["name"]:
            raise HTTPException(400, "Invalid request data: a prompt needs a name")
        wanted: type = list if body.get("type") == "chat" else str
        if not isinstance(body.get("prompt"), wanted):
            raise HTTPException(400, "Invalid request data: prompt must be a text, or messages for a chat")
        return JSONResponse(_show_prompt(self._postgres.add_prompt(project["id"], body)), 201)

    def _label_prompt(self, project: dict[str, Any], request: Request, body: Any) -> Any:
        labels = body.get("newLabels") if isinstance(body, dict) else None
        if not isinstance(labels, list) or not all(isinstance(label, str) for label in labels):
            raise HTTPException(400, "Invalid request data: newLabels must be a list of texts")
        name, version = request.path_params["name"], request.path_params["version"]
        prompt = self._postgres.label_prompt(project["id"], name, version, labels)
        if prompt is None:
            raise HTTPException(404, f"Prompt not found: '{name}' with version {version}")
        return _show_prompt(prompt)

    def _prompt(self, project: dict[str, Any], request: Request, body: Any) -> Any:
        name, query = request.path_params["name"], request.query_params
        if "version" in query and "label" in query:
            raise HTTPException(400, "Cannot specify both version and label")
        if not query.get("version", "1").isdigit():
            raise HTTPException(400, "Invalid request data: version must be a number")
        version = int(query["version"]) if "version" in query else None
        label = query.get("label", "production")
        prompt = self._postgres.prompt(project["id"], name, version=version, label=label)
        if prompt is None:
            which = f"label '{label}'" if version is None else f"version {version}"
            raise HTTPException(404, f"Prompt not found: '{name}' with {which}")
        return _show_prompt(prompt)

    def _prompts(self, project: dict[str, Any], request: Request, body: Any) -> Any:
        by_name: dict[str, dict[str, Any]] = {}
        for row in self._postgres.prompts(project["id"]):  # the newest version of a name comes first
            shown = by_name.setdefault(
                row["name"],
                {
                    "name": row["name"],
                    "type": row["type"],
                    "versions": [],
                    "labels": [],
                    "tags": row["tags"],
                    "lastUpdatedAt": row["updated_at"].isoformat(),
                    "lastConfig": row["config"],
                },
            )
            shown["versions"].insert(0, row["version"])
            shown["labels"] = sorted({*shown["labels"], *row["labels"]})
        query = request.query_params
        found = [
            shown
            for shown in by_name.values()
            if query.get("name", shown["name"]) == shown["name"]
            and ("label" not in query or query["label"] in shown["labels"])
            and ("tag" not in query or query["tag"] in shown["tags"])
        ]
        return _paged(request, found)

    def _add_media(self, project: dict[str, Any], request: Request, body: Any) -> Any:
        try:
            content_type, length = str(body["contentType"]), int(body["contentLength"])
            sha256 = base64.b64decode(body["sha256Hash"], validate=True)
            if len(sha256) != 32 or not 0 < length <= 1 << 30 or not body["traceId"]:
                raise ValueError
        except (KeyError, TypeError, ValueError):
            raise HTTPException(
                400, "Invalid request data: traceId, contentType, contentLength and sha256Hash are needed"
            ) from None
        media = base64.urlsafe_b64encode(sha256).decode()[:22]
        extension = PurePosixPath(content_type.split(";")[0]).name or "bin"
        key = f"{project['id']}/{media}.{extension}"
        links = self._media_links()
        is_new = self._postgres.add_media(project["id"], media, key, content_type, length)
        link = links.upload_link(key, content_type, length, body["sha256Hash"]) if is_new else None
        return {"mediaId": media, "uploadUrl": link}

    def _media_uploaded(self, project: dict[str, Any], request: Request, body: Any) -> Any:
        if not isinstance(body, dict) or not isinstance(body.get("uploadHttpStatus"), int):
            raise HTTPException(400, "Invalid request data: uploadHttpStatus is needed")
        if body["uploadHttpStatus"] in (200, 201):
            at = str(body.get("uploadedAt") or events.now())
            if not self._postgres.media_uploaded(project["id"], request.path_params["id"], at):
                raise HTTPException(404, "Media asset not found")
        return Response(status_code=204)

    def _get_media(self, project: dict[str, Any], request: Request, body: Any) -> Any:
        media = self._postgres.media(project["id"], request.path_params["id"])
        if media is None:
            raise HTTPException(404, "Media asset not found or not yet uploaded")
        return {
            "mediaId": media["id"],
            "contentType": media["content_type"],
            "contentLength": media["content_length"],
            "uploadedAt": media["uploaded_at"].isoformat(),
            "url": self._media_links().download_link(media["key"]),
            "urlExpiry": events.iso(events.micros(events.now()) + 3_600_000_000),
        }

    def _media_links(self) -> ObjectStore:
        if self._media is None:
            raise HTTPException(422, "Media uploads are off: LANGFUSE_S3_MEDIA_UPLOAD_BUCKET is not set")
        return self._media


def web(settings: Settings) -> Starlette:
    """The web half's application."""
    return _application(Api(settings).routes())


def worker(settings: Settings) -> Starlette:
    """The worker half's application: its health routes, with the worker running behind them."""
    jobs, postgres = Worker(settings), Postgres(settings)

    def health(request: Request, body: bytes) -> Any:
        try:
            postgres.ping()
            jobs.ping_redis()
        except Exception as error:
            _log.warning("health: %s", error)
            return JSONResponse({"status": "error", "double": True}, 500)
        return {"status": "ok", "version": VERSION, "double": True}

    @contextlib.asynccontextmanager
    async def running(app: Starlette) -> AsyncIterator[None]:
        jobs.start()
        yield
        await run_sync(jobs.stop)

    return _application(
        [_route("GET", "/api/health", health), _route("GET", "/api/ready", health)], lifespan=running
    )


def _application(routes: list[Route], **more: Any) -> Starlette:
    handlers: dict[Any, Any] = {HTTPException: _refused, StoreProblem: _store_away}
    return Starlette(routes=routes, exception_handlers=handlers, **more)


def _route(method: str, path: str, handler: Callable[[Request, bytes], Any]) -> Route:
    async def endpoint(request: Request) -> Response:
        body = await _body(request)
        answer = await run_sync(handler, request, body)
        return answer if isinstance(answer, Response) else JSONResponse(answer)

    return Route(path, endpoint, methods=[method])


async def _body(request: Request) -> bytes:
    body = b""
    async for chunk in request.stream():
        body += chunk
        if len(body) > _LARGEST_BODY:
            raise HTTPException(413, "Request body too large")
    if "gzip" in request.headers.get("content-encoding", ""):
        try:
            return unpacked(body, _LARGEST_BODY)
        except TooLarge:
            raise HTTPException(413, "Request body too large") from None
        except ValueError:
            raise HTTPException(400, "Failed to decompress request body") from None
    return body


def _parsed(body: bytes) -> Any:
    try:
        return json.loads(body) if body else None
    except ValueError:
        raise HTTPException(400, "Invalid JSON") from None


def _refused(request: Request, error: HTTPException) -> Response:
    names = {401: "UnauthorizedError", 404: "LangfuseNotFoundError"}
    name = names.get(error.status_code, "InvalidRequestError")
    return JSONResponse({"message": error.detail, "error": name}, error.status_code)


def _store_away(request: Request, error: StoreProblem) -> Response:
    _log.warning("%s %s: %s", request.method, request.url.path, error)
    return JSONResponse({"message": f"{error.store} is not available", "error": "ServiceUnavailable"}, 503)


def _healthy(status: str = "OK", code: int = 200) -> JSONResponse:
    return JSONResponse({"status": status, "version": VERSION, "double": True}, code)


def _within(at: str, start: str | None, end: str | None) -> bool:
    try:
        return (start is None or micros_of(start) <= events.micros(at)) and (
            end is None or events.micros(at) < micros_of(end)
        )
    except ValueError:
        raise HTTPException(400, "fromTimestamp and toTimestamp must be ISO 8601") from None


def micros_of(text: str) -> int:
    """A time of a query string, where a `+` may have become a space."""
    return events.micros(text.replace(" ", "+"))


def _paged(request: Request, items: list[Any]) -> dict[str, Any]:
    try:
        page, limit = int(request.query_params.get("page", 1)), int(request.query_params.get("limit", 50))
        if page < 1 or not 1 <= limit <= 100:
            raise ValueError
    except ValueError:
        raise HTTPException(400, "page must be at least 1, limit between 1 and 100") from None
    return {
        "data": items[(page - 1) * limit : page * limit],
        "meta": {
            "page": page,
            "limit": limit,
            "totalItems": len(items),
            "totalPages": -(-len(items) // limit),
        },
    }


def _show_prompt(row: dict[str, Any]) -> dict[str, Any]:
    return {
        "id": str(row["id"]),
        "projectId": row["project_id"],
        "name": row["name"],
        "version": row["version"],
        "type": row["type"],
        "prompt": row["prompt"],
        "config": row["config"],
        "labels": row["labels"],
        "tags": row["tags"],
        "commitMessage": row["commit_message"],
        "createdAt": row["created_at"].isoformat(),
        "updatedAt": row["updated_at"].isoformat(),
        "createdBy": "API",
        "resolutionGraph": None,
    }
