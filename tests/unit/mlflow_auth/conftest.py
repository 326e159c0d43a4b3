from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.unit.mlflow_auth.scripted import Scripted, scripted_server


@pytest.fixture
def scripted() -> Iterator[Scripted]:
    with scripted_server() as script:
        yield script
