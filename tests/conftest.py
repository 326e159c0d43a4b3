from __future__ import annotations

import subprocess
from collections import Counter
from collections.abc import Mapping
from pathlib import Path

import pytest

from scripts.bootstrap import venv
from scripts.machine.processes import say
from tests.deployment import pulumi_environment

_WHAT_RUNS = {
    "unit": "no engine: settings, declarations under Pulumi's mocks, scripts",
    "integration": "real: Pulumi CLI and plugins, Docker engine, Postgres, MinIO, Redis, ClickHouse, MLflow, clients",
    "contract": "real stores, scripts and Langfuse SDK; in Langfuse's place its contract double",
    "faults": "real, while parts of it are killed or taken away",
}


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--kills", type=int, default=2, help="how often `pulumi up` is killed in the middle")
    parser.addoption("--away", type=float, default=5, help="for how many seconds a store is away")
    parser.addoption("--thorough", action="store_true", help="also the tests that take minutes each")
    parser.addoption("--seed", type=int, default=20261126, help="what chance decides is the same for a seed")


def pytest_report_header(config: pytest.Config) -> str:
    return f"seed: {config.getoption('--seed')}"


@pytest.hookimpl(tryfirst=True)  # hypothesis reads its seed when it is configured
def pytest_configure(config: pytest.Config) -> None:
    if config.getoption("--hypothesis-seed") is None:
        config.option.hypothesis_seed = str(config.getoption("--seed"))
    config.addinivalue_line("markers", "thorough: takes minutes; `make test-faults` runs it")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if config.getoption("--thorough"):
        return
    thorough = [item for item in items if item.get_closest_marker("thorough")]
    config.hook.pytest_deselected(items=thorough)
    items[:] = [item for item in items if item not in thorough]


@pytest.fixture(scope="session")
def environment() -> Mapping[str, str]:
    """That in which `pulumi` works."""
    return pulumi_environment()


@pytest.fixture(scope="session")
def client_python() -> Path:
    """A Python that has the real clients and nothing of this project."""
    return venv.ensure_clients(say)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """What ran, and on what."""
    ran = Counter(
        report.nodeid.split("/")[1]
        for outcome in ("passed", "failed")
        for report in terminalreporter.stats.get(outcome, [])
        if report.when == "call" and report.nodeid.startswith("tests/")
    )
    terminalreporter.section("what ran, and on what")
    for folder, what in _WHAT_RUNS.items():
        if ran[folder]:
            terminalreporter.write_line(f"{folder:11} {ran[folder]:4} tests   {what}")
    if set(ran) - {"unit"}:
        terminalreporter.write_line(
            f"engine      {_first_line('docker', 'version', '--format', '{{.Server.Version}}')}"
        )


def _first_line(*command: str) -> str:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return (done.stdout or done.stderr).strip().partition("\n")[0]
