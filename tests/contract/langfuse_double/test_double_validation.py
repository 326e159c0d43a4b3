"""The stack's validation, over the double: it tells what works and names exactly what broke."""

from __future__ import annotations

import json

import pytest

from scripts import validate_services
from tests.contract.langfuse_double.stack import Stack


@pytest.fixture
def outputs(stack: Stack, tmp_path) -> str:
    """A file with what the stack's outputs would be."""
    names = {"postgres": "postgres", "clickhouse": "clickhouse", "redis": "redis", "s3": "minio"}
    containers = {f"langfuse-{service}": stack.stores[name].name for name, service in names.items()}
    containers |= {
        "langfuse-web": stack.web.name,
        "langfuse-worker": stack.worker.name,
        "langfuse-init-minio": stack.buckets.name,
    }
    keys = stack.credentials
    file = tmp_path / "outputs.json"
    file.write_text(
        json.dumps(
            {
                "langfuseUrl": stack.url,
                "langfusePublicKey": keys.public_key,
                "langfuseSecretKey": keys.secret_key,
                "containers": containers,
            }
        )
    )
    return str(file)


def validated(outputs: str, capsys: pytest.CaptureFixture[str]) -> tuple[int, dict, dict[str, dict]]:
    code = validate_services.main(["--outputs", outputs, "--json"])
    shown = json.loads(capsys.readouterr().out)
    return code, shown, {service["service"]: service for service in shown["services"]}


def test_all_that_works_is_said_to_work(
    outputs: str, stack: Stack, capsys: pytest.CaptureFixture[str]
) -> None:
    code, shown, services = validated(outputs, capsys)
    assert (code, shown["ok"], shown["double"]) == (0, True, True), shown
    assert {name: service["status"] for name, service in services.items() if name != "disk"} == dict.fromkeys(
        (
            *(
                "langfuse-web",
                "langfuse-worker",
                "langfuse-postgres",
                "langfuse-clickhouse",
                "langfuse-redis",
            ),
            *("langfuse-minio", "langfuse-init-minio", "langfuse-trace"),
        ),
        "ok",
    )
    assert services["langfuse-postgres"]["version"] == "15"
    assert services["langfuse-web"]["version"] == "3.225.4-double"
    assert "events, media" in services["langfuse-minio"]["detail"]
    assert validate_services.main(["--outputs", outputs]) == 0
    table = capsys.readouterr().out
    assert max(map(len, table.splitlines())) <= 80
    assert "CONTRACT DOUBLE" in " ".join(table.split())
    assert stack.credentials.password not in table


@pytest.mark.parametrize("store", ["postgres", "clickhouse", "redis", "s3"])
def test_the_store_that_broke_is_named_and_no_other(
    outputs: str, stack: Stack, store: str, capsys: pytest.CaptureFixture[str]
) -> None:
    stack.stores[store].stop()
    try:
        code, shown, services = validated(outputs, capsys)
    finally:
        stack.stores[store].start()
        stack.wait_for_store(store)
        stack.wait_for_worker()
    name = "langfuse-minio" if store == "s3" else f"langfuse-{store}"
    assert (code, shown["ok"]) == (1, False)
    assert [one["service"] for one in services.values() if one["status"] == "failed"] == [name]
    assert "exited" in services[name]["detail"]
    assert "make start" in services[name]["hint"]
    assert services[name]["log"]
    assert services["langfuse-trace"]["status"] == "blocked"
    assert services["langfuse-trace"]["detail"].startswith(f"by {name}:")


def test_a_stopped_worker_is_the_cause_of_a_lost_trace(
    outputs: str, stack: Stack, capsys: pytest.CaptureFixture[str]
) -> None:
    stack.worker.stop()
    try:
        _, _, services = validated(outputs, capsys)
    finally:
        stack.worker.start()
        stack.wait_for_worker()
    assert services["langfuse-worker"]["status"] == "failed"
    assert services["langfuse-trace"]["detail"].startswith("by langfuse-worker: sent, not found again")
