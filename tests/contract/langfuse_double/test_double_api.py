"""What stack and SDK rely on in Langfuse's API, asked over HTTP."""

from __future__ import annotations

import base64
import gzip
import hashlib
import json
import secrets
import uuid

import requests

from tests.conditions import until
from tests.contract.langfuse_double.stack import Stack, label

AT = "2026-03-01T12:00:00.000Z"


def test_it_says_that_it_is_a_double(stack: Stack, images: dict[str, str]) -> None:
    for route in ("health", "health?failIfDatabaseUnavailable=true", "ready"):
        answer = stack.call("GET", route, auth=None)
        assert answer.status_code == 200
        assert answer.json() == {"status": "OK", "version": "3.225.4-double", "double": True}
    for half, container in (("web", stack.web), ("worker", stack.worker)):
        assert label(images[f"langfuse-{half}"], "mlops-stack.double") == "true"
        assert "CONTRACT DOUBLE" in container.logs()
        assert container.server_ids() == (1001, 1001)
    health = stack.worker.exec("wget", "-qO-", "http://127.0.0.1:3030/api/ready").stdout
    assert json.loads(health)["double"] is True
    assert "not Langfuse" in requests.get(stack.url, timeout=10).text


def test_only_the_projects_keys_are_let_in(stack: Stack) -> None:
    keys = stack.credentials
    assert stack.call("GET", "projects").json()["data"][0]["id"] == "project"
    routes = (("GET", "projects"), ("POST", "otel/v1/traces"), ("POST", "ingestion"), ("GET", "traces"))
    for auth in (
        None,
        (keys.public_key, "sk-lf-wrong"),
        ("pk-lf-wrong", keys.secret_key),
        (keys.public_key, ""),
    ):
        for method, path in routes:
            assert stack.call(method, path, auth=auth).status_code == 401
    signup = requests.post(f"{stack.url}/api/auth/signup", json={"email": "a@example.com"}, timeout=10)
    assert signup.status_code == 422


def test_ingestion_answers_for_each_event_and_merges_them(stack: Stack) -> None:
    trace = str(uuid.uuid4())

    def event(kind: str, body: dict) -> dict:
        return {"id": str(uuid.uuid4()), "type": kind, "timestamp": AT, "body": body}

    batch = [
        event("trace-create", {"id": trace, "name": "first", "input": "it's \\ 你好 🙂", "tags": ["b"]}),
        event("trace-create", {"id": trace, "output": {"answer": 42}, "tags": ["a"]}),
        event("generation-create", {"id": f"{trace}-g", "traceId": trace, "name": "gen", "model": "m"}),
        event("generation-update", {"id": f"{trace}-g", "traceId": trace, "output": "said", "endTime": AT}),
        event("score-create", {"traceId": trace, "name": "good", "value": 0.5}),
        event("no-such-event", {}),
        {"type": "trace-create"},
    ]
    answer = stack.call("POST", "ingestion", json={"batch": batch})
    assert answer.status_code == 207
    assert [one["id"] for one in answer.json()["successes"]] == [one["id"] for one in batch[:5]]
    assert [one["status"] for one in answer.json()["errors"]] == [400, 400]
    until(lambda: stack.trace(trace)["scores"], "the trace's score")
    found = stack.trace(trace)
    assert (found["name"], found["input"], found["output"]) == ("first", "it's \\ 你好 🙂", {"answer": 42})
    assert found["tags"] == ["a", "b"]
    (generation,) = found["observations"]
    assert (generation["type"], generation["model"], generation["output"]) == ("GENERATION", "m", "said")
    assert found["scores"][0]["value"] == 0.5
    listed = stack.call("GET", "traces", params={"name": "first", "tags": "a", "fromTimestamp": AT}).json()
    assert [one["id"] for one in listed["data"]] == [trace]
    assert stack.call("DELETE", f"traces/{trace}").status_code == 200
    until(lambda: stack.call("GET", f"traces/{trace}").status_code == 404, "the trace's end")


def test_otlp_in_json_is_checked_as_a_whole(stack: Stack) -> None:
    trace = secrets.token_hex(16)
    span = {
        "traceId": trace,
        "spanId": secrets.token_hex(8),
        "name": "json",
        "startTimeUnixNano": "1767225600000000000",
        "endTimeUnixNano": "1767225601500000000",
        "attributes": [{"key": "langfuse.observation.input", "value": {"stringValue": '{"a": 1}'}}],
    }

    def post(*spans: dict, **headers: str) -> int:
        body = json.dumps({"resourceSpans": [{"scopeSpans": [{"spans": spans}]}]}).encode()
        if "Content-Encoding" in headers:
            body = gzip.compress(body)
        headers = {"Content-Type": "application/json"} | headers
        return stack.call("POST", "otel/v1/traces", data=body, headers=headers).status_code

    assert post(span, {**span, "traceId": "short"}) == 400
    assert post(span, **{"Content-Type": "text/plain"}) == 400
    for _ in range(2):  # an exporter that tries again sends the same spans again
        assert post(span, **{"Content-Encoding": "gzip"}) == 200
    found = stack.trace(trace)
    assert (found["name"], found["input"], found["latency"]) == ("json", {"a": 1}, 1.5)
    until(lambda: stack.redis("LLEN", "bull:otel-ingestion-queue:active") == "0", "an idle worker")
    assert len(stack.trace(trace)["observations"]) == 1


def test_media_is_uploaded_to_the_published_endpoint(stack: Stack) -> None:
    content = secrets.token_bytes(2000)
    digest = base64.b64encode(hashlib.sha256(content).digest()).decode()
    wanted = {
        "traceId": secrets.token_hex(16),
        "contentType": "image/png",
        "contentLength": len(content),
        "sha256Hash": digest,
        "field": "input",
    }
    media = stack.call("POST", "media", json=wanted).json()
    assert media["uploadUrl"].startswith(stack.media_url + "/media/media/project/")
    headers = {"Content-Type": "image/png", "x-amz-checksum-sha256": digest}
    forged = requests.put(media["uploadUrl"], data=b"x" * len(content), headers=headers, timeout=10)
    assert forged.status_code == 400
    assert stack.call("GET", f"media/{media['mediaId']}").status_code == 404
    put = requests.put(media["uploadUrl"], data=content, headers=headers, timeout=10)
    assert put.status_code == 200, put.text
    noted = stack.call("PATCH", f"media/{media['mediaId']}", json={"uploadedAt": AT, "uploadHttpStatus": 200})
    assert noted.status_code == 204
    stored = stack.call("GET", f"media/{media['mediaId']}").json()
    assert requests.get(stored["url"], timeout=10).content == content
    assert stack.call("POST", "media", json=wanted).json()["uploadUrl"] is None


def test_a_second_start_migrates_nothing_and_keeps_all(stack: Stack) -> None:
    prompt = stack.call(
        "POST", "v2/prompts", json={"name": "kept/over", "prompt": "Hi", "labels": ["production"]}
    )
    assert prompt.status_code == 201
    before = stack.web.logs()
    assert "clickhouse: 3 migration(s) applied" in before
    stack.web.stop()
    stack.web.start()
    stack.wait_for_web()
    again = stack.web.logs().removeprefix(before)
    assert "postgres: 0 migration(s) applied" in again
    assert "clickhouse: 0 migration(s) applied" in again
    assert stack.call("GET", "v2/prompts/kept%2Fover").json()["prompt"] == "Hi"
    assert stack.credentials.password not in stack.web.logs() + stack.web.inspect()
