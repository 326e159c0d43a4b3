"""Resolves the digest of every image in the table and records it: a tag that moves then changes nothing.

Usage: python -m scripts.pin_images

Asks each image's registry over its HTTP API, anonymously. All or nothing: where one answer is missing, the
recorded digests stay as they are.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import re
import tempfile
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Mapping
from dataclasses import dataclass
from email.message import Message
from pathlib import Path

from scripts.machine.problems import Problem
from scripts.machine.processes import end

DIGESTS = Path(__file__).parents[1] / "components" / "image_digests.json"
TIMEOUT_SECONDS = 20
_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")
# The index of all platforms first: its digest is right on every machine.
_ACCEPT = ", ".join(
    (
        "application/vnd.oci.image.index.v1+json",
        "application/vnd.docker.distribution.manifest.list.v2+json",
        "application/vnd.oci.image.manifest.v1+json",
        "application/vnd.docker.distribution.manifest.v2+json",
    )
)


@dataclass(frozen=True)
class Reference:
    """Where an image's manifest lies."""

    registry: str
    repository: str
    tag: str

    @classmethod
    def parse(cls, text: str) -> Reference:
        """Docker's own reading: no host means Docker Hub, and there no folder means `library`."""
        path, _, tag = text.partition("@")[0].rpartition(":")
        if not path or "/" in tag:
            raise Problem(
                f"the image {text!r} names no version", "give it a tag, as in postgres:17.6-bookworm"
            )
        host, _, rest = path.partition("/")
        if rest and ("." in host or ":" in host or host == "localhost"):
            return cls(host, rest, tag)
        return cls("registry-1.docker.io", path if rest else f"library/{path}", tag)

    @property
    def url(self) -> str:
        # As Docker does, a registry on this machine is spoken to without TLS.
        loopback = self.registry.partition(":")[0] in ("localhost", "127.0.0.1")
        return (
            f"{'http' if loopback else 'https'}://{self.registry}/v2/{self.repository}/manifests/{self.tag}"
        )


def digest_of(image: str) -> str:
    """The digest that the image's registry has for its tag."""
    reference = Reference.parse(image)
    try:
        headers, _ = _ask(reference.url, "HEAD", {"Accept": _ACCEPT})
        found = headers.get("Docker-Content-Digest", "")
        if not found:
            # The header is optional: the digest is the hash of the manifest's bytes.
            _, body = _ask(reference.url, "GET", {"Accept": _ACCEPT})
            found = f"sha256:{hashlib.sha256(body).hexdigest()}"
    except urllib.error.HTTPError as error:
        wrong = "has no such tag" if error.code == 404 else f"answers {error.code} {error.reason}"
        raise Problem(
            f"no digest for {image}: {reference.registry} {wrong}",
            "check its name and version in components/images.py",
        ) from None
    except (OSError, ValueError) as error:
        reason = getattr(error, "reason", error)
        raise Problem(
            f"no digest for {image}: {reference.registry} does not answer ({reason})",
            "run this where the image registries are reachable; the recorded digests were not changed",
        ) from None
    if not _DIGEST.fullmatch(found):
        raise Problem(f"no digest for {image}: {reference.registry} answers {found!r}", "ask again later")
    return found


def pin(table: Mapping[str, str], recorded: Path = DIGESTS) -> dict[str, str]:
    """Resolve every image of the table (name -> reference), then record reference -> digest in one step."""
    digests = {image: digest_of(image) for image in table.values()}
    text = json.dumps(digests, indent=2, sort_keys=True) + "\n"
    with tempfile.NamedTemporaryFile("w", dir=recorded.parent, prefix=recorded.name, delete=False) as file:
        file.write(text)
    os.chmod(file.name, 0o644)
    os.replace(file.name, recorded)
    return digests


def _ask(url: str, method: str, headers: dict[str, str]) -> tuple[Message, bytes]:
    """One request; where the registry wants a token it says where anonymous ones are to be had."""
    try:
        return _send(urllib.request.Request(url, method=method, headers=headers))
    except urllib.error.HTTPError as error:
        challenge = error.headers.get("WWW-Authenticate", "")
        if error.code != 401 or not challenge.lower().startswith("bearer "):
            raise
    token = _anonymous_token(challenge)
    return _send(
        urllib.request.Request(url, method=method, headers={**headers, "Authorization": f"Bearer {token}"})
    )


def _anonymous_token(challenge: str) -> str:
    fields = dict(re.findall(r'(\w+)="([^"]*)"', challenge))
    query = urllib.parse.urlencode({key: fields[key] for key in ("service", "scope") if key in fields})
    realm = fields.get("realm", "")
    _, body = _send(urllib.request.Request(f"{realm}{'&' if '?' in realm else '?'}{query}"))
    answer = json.loads(body)
    return answer.get("token") or answer.get("access_token", "")


def _send(request: urllib.request.Request) -> tuple[Message, bytes]:
    with urllib.request.urlopen(request, timeout=TIMEOUT_SECONDS) as response:
        return response.headers, response.read()


def main() -> int:
    from components.images import TABLE

    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.parse_args()
    for image, digest in pin(TABLE).items():
        print(f"{image}@{digest}")
    return 0


if __name__ == "__main__":
    end(main)
