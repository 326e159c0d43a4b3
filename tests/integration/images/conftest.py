from __future__ import annotations

import secrets
from collections.abc import Callable, Iterator

import pytest

from airgap.images import ensure
from tests.engine import Engine


@pytest.fixture(scope="session")
def image() -> Callable[[str], str]:
    """Logical name -> reference, built on first use."""
    references: dict[str, str] = {}

    def reference(name: str) -> str:
        if name not in references:
            references.update(ensure([name]))
        return references[name]

    return reference


@pytest.fixture
def engine(image: Callable[[str], str]) -> Iterator[Engine]:
    engine = Engine(image)
    yield engine
    engine.close()


@pytest.fixture
def password() -> str:
    return secrets.token_urlsafe(24)
