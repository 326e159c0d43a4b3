"""OTLP traces: both encodings to one form for the queue, and that form to traces and observations."""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Iterator
from typing import Any

from google.protobuf.json_format import MessageToDict
from google.protobuf.message import DecodeError
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from .events import Row, iso, merged, micros

_ID = {"traceId": 32, "spanId": 16}
_TRACE = "langfuse.trace."
_OBSERVATION = "langfuse.observation."


def parse(body: bytes, content_type: str) -> list[dict[str, Any]]:
    """`resourceSpans` as OTLP/JSON has them (ids in hex), from either encoding; else ValueError."""
    if "application/x-protobuf" in content_type:
        try:
            message = MessageToDict(ExportTraceServiceRequest.FromString(body))
        except DecodeError as error:
            raise ValueError("Failed to parse OTel Protobuf Trace") from error
        for span in _spans(message.get("resourceSpans", [])):
            for name in ("traceId", "spanId", "parentSpanId"):
                if name in span:
                    span[name] = base64.b64decode(span[name]).hex()
    elif "application/json" in content_type:
        try:
            message = json.loads(body)
        except ValueError as error:
            raise ValueError("Failed to parse OTel JSON Trace") from error
        if not isinstance(message, dict):
            raise ValueError("Failed to parse OTel JSON Trace")
    else:
        raise ValueError("Invalid content type")
    spans = message.get("resourceSpans") or []
    try:
        for span in _spans(spans):
            for name, digits in _ID.items():
                if not re.fullmatch(f"[0-9a-fA-F]{{{digits}}}", str(span.get(name))):
                    raise ValueError(f"span without a valid {name}: the whole batch is rejected")
    except (AttributeError, TypeError) as error:
        raise ValueError("resourceSpans, scopeSpans and spans must be lists of objects") from error
    return spans


def rows(resource_spans: list[dict[str, Any]]) -> Iterator[tuple[str, Row]]:
    """(table, row) for every span's observation and for every trace they tell of."""
    traces: dict[str, dict[str, Any]] = {}
    for resource in resource_spans:
        shared = _attributes(resource.get("resource", {}))
        for span in _spans([resource]):
            attributes = shared | _attributes(span)
            observation = _observation(span, attributes)
            yield "observations", observation
            update = _trace(span, attributes, observation["body"])
            traces[update["id"]] = merged(traces.get(update["id"], {}), update)
    for identifier, body in traces.items():
        yield (
            "traces",
            {"id": identifier, "trace_id": identifier, "time_us": micros(body["timestamp"]), "body": body},
        )


def _spans(resource_spans: list[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    for resource in resource_spans:
        for scope in resource.get("scopeSpans") or []:
            yield from scope.get("spans") or []


def _attributes(holder: dict[str, Any]) -> dict[str, Any]:
    return {item["key"]: _value(item.get("value") or {}) for item in holder.get("attributes") or []}


def _value(value: dict[str, Any]) -> Any:
    if "arrayValue" in value:
        return [_value(item) for item in value["arrayValue"].get("values") or []]
    if "kvlistValue" in value:
        return {item["key"]: _value(item["value"]) for item in value["kvlistValue"].get("values") or []}
    if "intValue" in value:
        return int(value["intValue"])
    return next(iter(value.values()), None)


def _observation(span: dict[str, Any], attributes: dict[str, Any]) -> Row:
    def own(name: str) -> Any:
        return _decoded(attributes.get(_OBSERVATION + name))

    start = int(span["startTimeUnixNano"]) // 1000
    end = int(span.get("endTimeUnixNano", 0)) // 1000
    failed = (span.get("status") or {}).get("code") in (2, "STATUS_CODE_ERROR")
    body = {
        "id": span["spanId"].lower(),
        "traceId": span["traceId"].lower(),
        "parentObservationId": (span.get("parentSpanId") or "").lower() or None,
        "type": str(own("type") or "span").upper(),
        "name": span.get("name"),
        "startTime": iso(start),
        "endTime": iso(end) if end else None,
        "completionStartTime": own("completion_start_time"),
        "model": own("model.name"),
        "modelParameters": own("model.parameters"),
        "input": own("input"),
        "output": own("output"),
        "metadata": _metadata(_OBSERVATION, attributes),
        "level": own("level") or ("ERROR" if failed else "DEFAULT"),
        "statusMessage": own("status_message") or (span.get("status") or {}).get("message"),
        "usageDetails": own("usage_details"),
        "costDetails": own("cost_details"),
        "promptName": own("prompt.name"),
        "promptVersion": own("prompt.version"),
        "version": attributes.get("langfuse.version"),
        "environment": _environment(attributes),
    }
    return {"id": body["id"], "trace_id": body["traceId"], "time_us": start, "body": body}


def _trace(span: dict[str, Any], attributes: dict[str, Any], observation: dict[str, Any]) -> dict[str, Any]:
    """What one span says of its trace; the root span lends it name, input and output."""

    def own(name: str) -> Any:
        return _decoded(attributes.get(_TRACE + name))

    is_root = observation["parentObservationId"] is None
    body = {
        "id": observation["traceId"],
        "timestamp": observation["startTime"],
        "name": own("name") or (span.get("name") if is_root else None),
        "userId": attributes.get("user.id") or attributes.get("langfuse.user.id"),
        "sessionId": attributes.get("session.id") or attributes.get("langfuse.session.id"),
        "tags": own("tags"),
        "public": own("public"),
        "metadata": _metadata(_TRACE, attributes),
        "input": own("input") or (observation["input"] if is_root else None),
        "output": own("output") or (observation["output"] if is_root else None),
        "release": attributes.get("langfuse.release"),
        "version": attributes.get("langfuse.version"),
        "environment": _environment(attributes),
    }
    return {name: value for name, value in body.items() if value is not None}


def _metadata(family: str, attributes: dict[str, Any]) -> dict[str, Any]:
    prefix = f"{family}metadata"
    whole = _decoded(attributes.get(prefix))
    parts = {
        name.removeprefix(prefix + "."): _decoded(value)
        for name, value in attributes.items()
        if name.startswith(prefix + ".")
    }
    return {**(whole if isinstance(whole, dict) else {}), **parts}


def _environment(attributes: dict[str, Any]) -> str:
    return (
        attributes.get("langfuse.environment") or attributes.get("deployment.environment.name") or "default"
    )


def _decoded(value: Any) -> Any:
    """Attributes carry objects, lists and strings as JSON; anything else is what it is."""
    if not isinstance(value, str):
        return value
    try:
        return json.loads(value)
    except ValueError:
        return value
