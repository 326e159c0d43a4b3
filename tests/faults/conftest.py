from __future__ import annotations

import os
import random
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from airgap.images import ensure
from scripts.bootstrap.stack import Stack
from scripts.bootstrap.tools import find
from tests.checkout import Checkout
from tests.checkout import checkout as new_checkout
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


@pytest.fixture
def checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Checkout]:
    """A copy of the checkout, with a state and a passphrase of its own."""
    for name in ("PULUMI_BACKEND_URL", "PULUMI_CONFIG_PASSPHRASE", "PULUMI_CONFIG_PASSPHRASE_FILE"):
        monkeypatch.delenv(name, raising=False)
    with new_checkout(tmp_path) as made:
        yield made
