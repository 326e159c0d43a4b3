"""Digests are taken from a registry that speaks the real protocol, on this machine."""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import pytest

from scripts.machine.problems import Problem
from scripts.pin_images import Reference, digest_of, pin

MANIFEST = b'{"schemaVersion": 2}'
DIGEST = f"sha256:{hashlib.sha256(MANIFEST).hexdigest()}"


class Registry(BaseHTTPRequestHandler):
    """Repository `open` needs no token, `guarded` needs one, `bare` leaves the digest header out."""

    def do_GET(self) -> None:
        url = urlsplit(self.path)
        if url.path == "/token":
            scope = parse_qs(url.query)["scope"][0]
            return self.answer(200, json.dumps({"token": f"for {scope}"}).encode())
        _, _, repository, _, tag = url.path.split("/")
        scope = f"repository:{repository}:pull"
        if repository == "guarded" and self.headers["Authorization"] != f"Bearer for {scope}":
            realm = f"http://{self.headers['Host']}/token"
            challenge = f'Bearer realm="{realm}",service="the registry",scope="{scope}"'
            return self.answer(401, b"{}", {"WWW-Authenticate": challenge})
        if tag != "1.0" or "application/vnd.oci.image.index.v1+json" not in self.headers["Accept"]:
            return self.answer(404, b"{}")
        if repository == "odd":
            return self.answer(200, MANIFEST, {"Docker-Content-Digest": "md5:0"})
        return self.answer(200, MANIFEST, {} if repository == "bare" else {"Docker-Content-Digest": DIGEST})

    do_HEAD = do_GET

    def answer(self, status: int, body: bytes, headers: dict[str, str] | None = None) -> None:
        self.send_response(status)
        for name, value in {"Content-Length": str(len(body)), **(headers or {})}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture
def registry() -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Registry)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield f"127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.mark.parametrize("repository", ["open", "guarded", "bare"])
def test_digest_with_and_without_token_and_header(registry: str, repository: str) -> None:
    assert digest_of(f"{registry}/{repository}:1.0") == DIGEST


def test_pin_records_by_reference(registry: str, tmp_path: Path) -> None:
    recorded = tmp_path / "digests.json"
    image = f"{registry}/open:1.0"
    pin({"postgres": image}, recorded)
    assert json.loads(recorded.read_text()) == {image: DIGEST}
    assert list(tmp_path.iterdir()) == [recorded]


@pytest.mark.parametrize(
    ("image", "named"),
    [
        ("{registry}/open:2.0", "no such tag"),
        ("{registry}/odd:1.0", "md5:0"),
        ("{registry}/open", "names no version"),
        ("127.0.0.1:1/open:1.0", "does not answer"),
    ],
)
def test_one_failure_changes_nothing(registry: str, tmp_path: Path, image: str, named: str) -> None:
    recorded = tmp_path / "digests.json"
    recorded.write_text("{}")
    with pytest.raises(Problem, match=named):
        pin({"good": f"{registry}/open:1.0", "bad": image.format(registry=registry)}, recorded)
    assert recorded.read_text() == "{}"
    assert list(tmp_path.iterdir()) == [recorded]


@pytest.mark.parametrize(
    ("image", "url"),
    [
        ("postgres:17.6", "https://registry-1.docker.io/v2/library/postgres/manifests/17.6"),
        ("langfuse/langfuse:3.1", "https://registry-1.docker.io/v2/langfuse/langfuse/manifests/3.1"),
        ("quay.io/minio/mc:R.1", "https://quay.io/v2/minio/mc/manifests/R.1"),
        ("reg.example:5000/a/b/c:1@sha256:00", "https://reg.example:5000/v2/a/b/c/manifests/1"),
        ("localhost:5000/a:1", "http://localhost:5000/v2/a/manifests/1"),
    ],
)
def test_references_are_read_as_docker_reads_them(image: str, url: str) -> None:
    assert Reference.parse(image).url == url
