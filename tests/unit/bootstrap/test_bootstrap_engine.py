"""Which engine is meant, and what the PID files of one that was killed are taken for."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from scripts.bootstrap import engine
from tests.conditions import until
from tests.unit.bootstrap.conftest import Program

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")


def _state(pid: int) -> str:
    return Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2][0]


def test_a_pid_file_is_believed_while_its_daemon_lives_and_no_longer(tmp_path: Path) -> None:
    file = tmp_path / "daemon.pid"
    with subprocess.Popen(["sleep", "60"]) as daemon:
        try:
            file.write_text(f"{daemon.pid}\n")
            until(lambda: engine._runs(file, "sleep"), "the daemon")
        finally:
            daemon.kill()
        until(lambda: _state(daemon.pid) == "Z", "the end of the daemon, which nobody has asked for yet")
        assert not engine._runs(file, "sleep")
        assert not file.exists()


def test_a_pid_file_whose_number_another_process_has_goes(tmp_path: Path) -> None:
    file = tmp_path / "daemon.pid"
    file.write_text(str(os.getpid()))
    assert not engine._runs(file, "dockerd")
    assert not file.exists()


@pytest.mark.parametrize(
    ("variable", "context", "handed_on"),
    [
        ("", "unix:///var/run/docker.sock", {}),
        ("", "", {}),
        ("", "ssh://far", {"DOCKER_HOST": "ssh://far"}),
        ("tcp://near:2375", "ssh://far", {"DOCKER_HOST": "tcp://near:2375"}),
    ],
)
def test_docker_s_provider_is_led_to_the_engine_of_the_docker_command(
    docker: Program,
    monkeypatch: pytest.MonkeyPatch,
    variable: str,
    context: str,
    handed_on: dict[str, str],
) -> None:
    docker.answers("context inspect", f"{context}\n")
    monkeypatch.setenv("DOCKER_HOST", variable)
    assert engine.variables() == handed_on
