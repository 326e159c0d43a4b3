from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path

import pytest

from scripts.bootstrap import stack, tools, venv
from scripts.bootstrap.processes import say


@pytest.fixture(scope="session")
def environment() -> Mapping[str, str]:
    """That in which `pulumi` works; each deployment has a passphrase of its own."""
    return stack.tool_environment(tools.ensure(Path(sys.executable), say))


@pytest.fixture(scope="session")
def client_python() -> Path:
    """A Python that has the real clients and nothing of this project."""
    return venv.ensure_clients(say)
