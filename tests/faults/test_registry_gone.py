"""The package registry goes away in the middle of a build: it is said, nothing half-made stays, and the next run goes on."""

from __future__ import annotations

import os
import shutil
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import requests

from airgap.toolchain import builder
from scripts.machine.problems import Problem

PART = "language-python"
_ANSWERS_BEFORE_IT_GOES = 40


@contextmanager
def registry(behind: str, answers: int | None) -> Iterator[tuple[str, list[str]]]:
    """A module proxy on loopback before the real one, and what it was asked for. After so many answers it hangs up."""
    asked: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.path)
            if answers is not None and len(asked) > answers:
                self.connection.close()
                return
            found = requests.get(behind + self.path, timeout=60)
            self.send_response(found.status_code)
            self.send_header("Content-Length", str(len(found.content)))
            self.end_headers()
            self.wfile.write(found.content)

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}", asked
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@pytest.fixture
def real(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The registry that Go uses, with nothing of it in any cache."""
    said = subprocess.run(["go", "env", "GOPROXY"], capture_output=True, text=True, check=True).stdout
    first = said.strip().split(",")[0].rstrip("/")
    if not first.startswith("http"):
        pytest.skip("Go fetches its modules from no proxy")
    monkeypatch.setenv("MLOPS_STACK_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("GOMODCACHE", str(tmp_path / "modules"))
    monkeypatch.setenv("GOFLAGS", f"{os.environ.get('GOFLAGS', '')} -modcacherw".strip())
    yield first
    shutil.rmtree(tmp_path, ignore_errors=True)


@pytest.mark.thorough
def test_the_next_run_goes_on(real: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    said: list[str] = []
    with registry(real, _ANSWERS_BEFORE_IT_GOES) as (url, before):
        monkeypatch.setenv("GOPROXY", url)
        with pytest.raises(Problem, match=f"building {PART} .* failed") as problem:
            builder.ensure(PART, said.append)
    assert "check GOPROXY" in problem.value.fix
    made = tmp_path / "cache" / "toolchain"
    assert [path.name for path in made.iterdir() if path.is_dir()] == []

    with registry(real, None) as (url, after):
        monkeypatch.setenv("GOPROXY", url)
        binary = builder.ensure(PART, said.append)
    assert os.access(binary, os.X_OK)
    fetched = {path for path in before[:_ANSWERS_BEFORE_IT_GOES] if path.endswith((".zip", ".mod"))}
    print(f"gone after {len(fetched)} files; the next run asked for {len(after)} more")
    assert not fetched & set(after), "what had been fetched was fetched again"
