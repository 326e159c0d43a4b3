"""Ingestion events, the documents they add up to, and how the public API shows these."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any, TypedDict

TRACE = "trace-create"
SCORE = "score-create"
LOG = "sdk-log"
_OBSERVATIONS = ("span", "generation", "event", "observation")
TYPES = {TRACE, SCORE, LOG} | {
    f"{kind}-{verb}" for kind in _OBSERVATIONS for verb in ("create", "update")
} - {"event-update"}
_OLDEST = ("timestamp", "startTime")


class Row(TypedDict):
    """A document with what it is found and sorted by."""

    id: str
    trace_id: str
    time_us: int
    body: dict[str, Any]


def iso(at: int) -> str:
    """Microseconds since 1970 as the API writes times."""
    text = datetime.fromtimestamp(at / 1_000_000, UTC).isoformat(timespec="milliseconds")
    return text.replace("+00:00", "Z")


def micros(text: str) -> int:
    """An ISO 8601 time as microseconds since 1970; ValueError if it is none."""
    at = datetime.fromisoformat(text)
    return int((at if at.tzinfo else at.replace(tzinfo=UTC)).timestamp() * 1_000_000)


def now() -> str:
    """The time as the API writes it."""
    return iso(int(datetime.now(UTC).timestamp() * 1_000_000))


def merged(old: dict[str, Any], new: dict[str, Any]) -> dict[str, Any]:
    """A document after an update: set fields win, tags and metadata add up, the oldest start stays."""
    result = old | {name: value for name, value in new.items() if value is not None}
    if old.get("tags") and new.get("tags"):
        result["tags"] = sorted({*old["tags"], *new["tags"]})
    if isinstance(old.get("metadata"), dict) and isinstance(new.get("metadata"), dict):
        result["metadata"] = old["metadata"] | new["metadata"]
    for name in _OLDEST:
        if old.get(name) and new.get(name):
            result[name] = min(old[name], new[name], key=micros)
    return result


def wrong(event: Any) -> str:
    """What is wrong with an ingestion event, or ""."""
    if not isinstance(event, dict) or not isinstance(event.get("id"), str) or not event["id"]:
        return "id must be a non-empty string"
    if event.get("type") not in TYPES:
        return f"type {event.get('type')!r} is unknown"
    body = event.get("body")
    if not isinstance(body, dict):
        return "body must be an object"
    times: dict[str, Any] = {"timestamp": event.get("timestamp")} | {
        name: body[name] for name in (*_OLDEST, "endTime") if body.get(name) is not None
    }
    for name, value in times.items():
        try:
            micros(value)
        except (TypeError, ValueError):
            return f"{name} {value!r} is not a time in ISO 8601"
    if event["type"] == SCORE:
        if not isinstance(body.get("name"), str) or not isinstance(body.get("value"), (int, float, str)):
            return "a score needs a name and a value"
        if not any(body.get(name) for name in ("traceId", "sessionId", "datasetRunId")):
            return "a score needs a traceId or a sessionId"
    return ""


def row(event: dict[str, Any]) -> tuple[str, Row]:
    """(table, row) of a checked event."""
    body, at = dict(event["body"]), event["timestamp"]
    identifier = body.setdefault("id", event["id"])
    kind = event["type"].rsplit("-", 1)[0]
    if event["type"] == TRACE:
        body.setdefault("timestamp", at)
        return "traces", _row(identifier, identifier, body["timestamp"], body)
    if event["type"] == SCORE:
        value = body["value"]
        body.setdefault("dataType", "CATEGORICAL" if isinstance(value, str) else "NUMERIC")
        body |= {"timestamp": at, "source": "API"}
        return "scores", _row(identifier, body.get("traceId") or "", at, body)
    if event["type"].endswith("-create"):
        body.setdefault("startTime", at)
    if kind != "observation":
        body["type"] = kind.upper()
    return "observations", _row(identifier, body.get("traceId") or "", body.get("startTime") or at, body)


def _row(identifier: str, trace_id: str, at: str, body: dict[str, Any]) -> Row:
    return {"id": identifier, "trace_id": trace_id, "time_us": micros(at), "body": body}


_TRACE_FIELDS = ("name", "input", "output", "sessionId", "release", "version", "userId", "metadata")
_OBSERVATION_FIELDS = (
    *("traceId", "parentObservationId", "name", "endTime", "completionStartTime", "model", "modelParameters"),
    *("input", "output", "metadata", "statusMessage", "version", "promptName", "promptVersion", "promptId"),
)
_SCORE_FIELDS = (
    *("name", "value", "traceId", "sessionId", "observationId", "comment", "metadata", "configId", "queueId"),
    *("dataType", "source", "authorUserId"),
)


def show_trace(project: str, body: dict[str, Any]) -> dict[str, Any]:
    """A trace as the API's lists show it."""
    return {
        "id": body["id"],
        "projectId": project,
        "timestamp": body["timestamp"],
        "createdAt": body["timestamp"],
        "updatedAt": body["timestamp"],
        **{name: body.get(name) for name in _TRACE_FIELDS},
        "tags": body.get("tags") or [],
        "public": bool(body.get("public")),
        "environment": body.get("environment") or "default",
        "bookmarked": False,
        "externalId": None,
        "htmlPath": f"/project/{project}/traces/{body['id']}",
    }


def show_full_trace(
    project: str, body: dict[str, Any], observations: list[dict[str, Any]], scores: list[dict[str, Any]]
) -> dict[str, Any]:
    """A trace with all that belongs to it."""
    shown = [show_observation(project, observation) for observation in observations]
    starts = [micros(observation["startTime"]) for observation in shown]
    ends = [micros(observation["endTime"]) for observation in shown if observation["endTime"]]
    return {
        **show_trace(project, body),
        "observations": sorted(shown, key=lambda one: one["startTime"]),
        "scores": [show_score(project, score) for score in scores],
        "latency": (max(ends) - min(starts)) / 1_000_000 if ends else 0,
        "totalCost": sum(observation["calculatedTotalCost"] or 0 for observation in shown),
    }


def show_observation(project: str, body: dict[str, Any]) -> dict[str, Any]:
    """An observation as the API shows it."""
    start, end = body.get("startTime") or body.get("endTime") or now(), body.get("endTime")
    usage, cost = body.get("usageDetails") or {}, body.get("costDetails") or {}
    return {
        "id": body["id"],
        "projectId": project,
        "type": body.get("type") or "SPAN",
        "startTime": start,
        **{name: body.get(name) for name in _OBSERVATION_FIELDS},
        "level": body.get("level") or "DEFAULT",
        "environment": body.get("environment") or "default",
        "usageDetails": usage,
        "costDetails": cost,
        "usage": {
            "input": usage.get("input", 0),
            "output": usage.get("output", 0),
            "total": usage.get("total", usage.get("input", 0) + usage.get("output", 0)),
            "unit": "TOKENS",
        },
        "calculatedTotalCost": cost.get("total", sum(cost.values())) if cost else None,
        "latency": (micros(end) - micros(start)) / 1_000_000 if end else None,
    }


def show_score(project: str, body: dict[str, Any]) -> dict[str, Any]:
    """A score as the API shows it."""
    return {
        "id": body["id"],
        "projectId": project,
        "timestamp": body["timestamp"],
        "createdAt": body["timestamp"],
        "updatedAt": body["timestamp"],
        **{name: body.get(name) for name in _SCORE_FIELDS},
        "environment": body.get("environment") or "default",
        **({"stringValue": body["value"]} if isinstance(body["value"], str) else {}),
    }
