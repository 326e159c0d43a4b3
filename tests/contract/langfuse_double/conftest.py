from __future__ import annotations

from collections.abc import Iterator

import pytest

from airgap.images import ensure
from tests.contract.langfuse_double.stack import Stack
from tests.engine import Engine

_IMAGES = ("postgres", "clickhouse", "redis", "minio", "mc", "langfuse-web", "langfuse-worker")


@pytest.fixture(scope="session")
def images() -> dict[str, str]:
    """Logical name -> reference of the double and its stores, built where missing."""
    return ensure(_IMAGES)


@pytest.fixture(scope="session")
def engine(images: dict[str, str]) -> Iterator[Engine]:
    engine = Engine(images.__getitem__)
    try:
        yield engine
    finally:
        engine.close()


@pytest.fixture(scope="session")
def stack(engine: Engine) -> Stack:
    return Stack(engine)
