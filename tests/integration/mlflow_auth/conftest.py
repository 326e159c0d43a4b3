from __future__ import annotations

import secrets

import pytest

from tests.integration.mlflow_auth.servers import VERSIONS, Server


@pytest.fixture(scope="session", params=VERSIONS)
def server(request: pytest.FixtureRequest) -> Server:
    version = request.param
    port = {"3.4.0": 18040, "3.17.2": 18172}[version]
    return Server(version, f"http://127.0.0.1:{port}", "admin", "correct-horse-battery")


@pytest.fixture
def tag() -> str:
    """What this test's names begin with, so that tests do not meet on the shared servers."""
    return f"t{secrets.token_hex(3)}"
