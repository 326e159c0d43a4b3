from __future__ import annotations

from collections.abc import Iterator

import pytest

from airgap.images import ensure
from tests.integration.mlflow_image.stack import Stack


@pytest.fixture(scope="session", params=["3.4.0", "3.17.2"])
def stack(request: pytest.FixtureRequest) -> Iterator[Stack]:
    stack = Stack(request.param, ensure(["python", "postgres", "minio"]))
    try:
        stack.start()
        yield stack
    finally:
        stack.close()
