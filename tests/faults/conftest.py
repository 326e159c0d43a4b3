from __future__ import annotations

import os
import random
from collections.abc import Iterator, Mapping

import pytest

from airgap.images import ensure
from scripts.bootstrap.stack import Stack
from scripts.bootstrap.tools import find
from tests.deployment import Deployment, deployment


@pytest.fixture(scope="session")
def chance(request: pytest.FixtureRequest) -> random.Random:
    seed = request.config.getoption("--seed")
    print(f"seed: {seed}")
    return random.Random(seed)


@pytest.fixture(scope="module")
def empty(tmp_path_factory: pytest.TempPathFactory, environment: Mapping[str, str]) -> Iterator[Deployment]:
    """MLflow's half, configured for this engine; nothing is deployed yet."""
    images = ensure(["python", "postgres", "minio", "mc"])
    folder = tmp_path_factory.mktemp("deployment")
    with deployment(folder, environment, images=images, langfuseEnabled=False) as made:
        yield made


@pytest.fixture
def stack(empty: Deployment, monkeypatch: pytest.MonkeyPatch) -> Stack:
    """The same as `make` sees it."""
    for name in set(os.environ) - set(empty.environment):
        monkeypatch.delenv(name)
    for name, value in empty.environment.items():
        monkeypatch.setenv(name, value)
    return Stack(empty.stack, find(), empty.folder)
