from __future__ import annotations

import secrets
from collections.abc import Iterator

import pytest

from airgap.images import ensure
from tests.integration.mlflow_auth.servers import VERSIONS, Server
from tests.integration.mlflow_image.stack import Stack


@pytest.fixture(scope="session", params=VERSIONS)
def server(request: pytest.FixtureRequest) -> Iterator[Server]:
    stack = Stack(request.param, ensure(["python", "postgres", "minio"]))
    try:
        stack.start()
        yield Server.of(stack)
    finally:
        stack.close()


@pytest.fixture
def tag() -> str:
    """What this test's names begin with, so that tests do not meet on the shared servers."""
    return f"t{secrets.token_hex(3)}"
