from __future__ import annotations

import os
import secrets
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from airgap.images import ensure
from scripts.bootstrap import stack, tools, venv
from scripts.bootstrap.processes import say
from tests.contract.langfuse_double.stack import free_port
from tests.deployment import Deployment, deployment

ADMIN_PASSWORD = f"given-{secrets.token_urlsafe(12)}"


@pytest.fixture(scope="session")
def environment() -> Mapping[str, str]:
    """That in which `pulumi` and `docker` work."""
    found = stack.tool_environment(tools.ensure(Path(sys.executable), say))
    return {
        name: value
        for name, value in found.items()
        if name not in ("PULUMI_CONFIG_PASSPHRASE_FILE", "DOCKER_CONFIG")
    }


@pytest.fixture(scope="session")
def images() -> dict[str, str]:
    """All images that can be had without a registry: what the settings name in place of the official ones."""
    names = ("python", "postgres", "minio", "mc", "redis", "clickhouse", "langfuse-web", "langfuse-worker")
    return ensure(names)


@pytest.fixture(scope="session")
def client_python() -> Path:
    """A Python that has the real clients and nothing of this project."""
    return venv.ensure_clients(say)


@pytest.fixture(scope="module")
def empty(
    tmp_path_factory: pytest.TempPathFactory, environment: Mapping[str, str], images: dict[str, str]
) -> Iterator[Deployment]:
    """Configured for this engine, with free ports and without Langfuse; nothing is deployed yet."""
    for made in deployment(tmp_path_factory.mktemp("deployment"), environment):
        made.configure(
            images=images,
            dataRetention="delete",
            langfuseEnabled=False,
            mlflowPort=free_port(),
            langfusePort=free_port(),
            langfuseMinioPort=free_port(),
        )
        yield made


@pytest.fixture
def workspace(tmp_path: Path) -> Path:
    """Where a client program may leave files."""
    os.makedirs(tmp_path, exist_ok=True)
    return tmp_path
