"""The health check's shell: it waits while a service starts, rests while it is well, and hurries once it is not."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from components import service

FAILS, WORKS = ("sh", "-c", "echo refused; exit 7"), ("sh", "-c", "echo ok")


def _check(shared: Path, *command: str, start: int = 0, **variables: str) -> subprocess.CompletedProcess[str]:
    script = service._CHECK.replace("/dev/shm", str(shared))
    return subprocess.run(
        ["sh", "-c", script, str(start), *command],
        env={**os.environ, **variables},
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )


def _rest(shared: Path) -> str:
    return (shared / "mlops-stack-rest").read_text().strip()


def test_the_first_check_lasts_until_the_service_answers(tmp_path: Path) -> None:
    at_the_second = ("sh", "-c", f"[ -e {tmp_path}/asked ] || {{ touch {tmp_path}/asked; exit 1; }}")
    assert _check(tmp_path, *at_the_second, start=20).returncode == 0
    assert _rest(tmp_path) == str(service.REST_SECONDS)


def test_a_service_that_does_not_start_in_time_is_asked_without_rest(tmp_path: Path) -> None:
    assert _check(tmp_path, *FAILS).returncode == 1
    assert _rest(tmp_path) == "0"


def test_after_a_refusal_it_no_longer_rests_and_after_an_answer_again(tmp_path: Path) -> None:
    (tmp_path / "mlops-stack-rest").write_text("0")
    refused = _check(tmp_path, *FAILS)
    assert (refused.returncode, refused.stdout, _rest(tmp_path)) == (1, "refused\n", "0")
    assert _check(tmp_path, *WORKS).returncode == 0
    assert _rest(tmp_path) == str(service.REST_SECONDS)


@pytest.mark.parametrize(("command", "code"), [(WORKS, 0), (FAILS, 7)])
def test_it_can_be_asked_at_once(tmp_path: Path, command: tuple[str, ...], code: int) -> None:
    (tmp_path / "mlops-stack-rest").write_text("600")
    assert _check(tmp_path, *command, HEALTH_NOW="1").returncode == code


def test_an_answer_that_does_not_come_is_a_refusal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(service, "_CHECK", service._CHECK.replace("timeout 10", "timeout 1"))
    (tmp_path / "mlops-stack-rest").write_text("0")
    assert _check(tmp_path, "sleep", "20").returncode == 1
