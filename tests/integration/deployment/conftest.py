from __future__ import annotations

from collections.abc import Iterator, Mapping

import pytest

from airgap.images import ensure
from airgap.images.recipes import DEBIAN, RECIPES
from tests.deployment import Deployment, deployment


@pytest.fixture(scope="session")
def images() -> dict[str, str]:
    """All images that can be had without a registry: what the settings name in place of the official ones."""
    return ensure(RECIPES)


@pytest.fixture(scope="session")
def debian(images: dict[str, str]) -> str:
    """What the other images stand on."""
    return DEBIAN.reference


@pytest.fixture(scope="module")
def empty(
    tmp_path_factory: pytest.TempPathFactory, environment: Mapping[str, str], images: dict[str, str]
) -> Iterator[Deployment]:
    """Configured for this engine, with free ports and without Langfuse; nothing is deployed yet."""
    folder = tmp_path_factory.mktemp("deployment")
    with deployment(folder, environment, images=images, langfuseEnabled=False) as made:
        yield made
