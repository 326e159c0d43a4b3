"""Which image each service runs: one table, a mirror, overrides, digests, and MLflow's image, which is built here."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from pathlib import Path

import pulumi
import pulumi_docker as docker

from components.settings import Settings

# Exact versions. MinIO's images exist on quay.io only, frozen at its last community release.
TABLE: Mapping[str, str] = {
    "python": "python:3.11.13-slim-bookworm",
    "postgres": "postgres:17.6-bookworm",
    "minio": "quay.io/minio/minio:RELEASE.2025-09-07T16-13-09Z",
    "mc": "quay.io/minio/mc:RELEASE.2025-08-13T08-35-41Z",
    "redis": "redis:7.4.5-bookworm",
    "clickhouse": "clickhouse/clickhouse-server:26.3.62.3",
    "langfuse-web": "langfuse/langfuse:3.225.4",
    "langfuse-worker": "langfuse/langfuse-worker:3.225.4",
}

_HERE = Path(__file__).resolve().parent
_DIGESTS = _HERE / "image_digests.json"
_MLFLOW_CONTEXT = Path("images/mlflow")


def digests() -> dict[str, str]:
    """Reference -> sha256 digest, as `make pin-images` recorded them; empty where it never ran."""
    return json.loads(_DIGESTS.read_text()) if _DIGESTS.exists() else {}


def version_of(reference: str) -> str:
    """What people call the image's version: its tag, else its digest."""
    name, _, digest = reference.partition("@")
    tag = name.rpartition(":")[2]
    return digest[:19] if digest and ":" not in name.rpartition("/")[2] else tag


def mirrored(reference: str, mirror: str) -> str:
    """The reference below a mirror, which keeps repositories' paths: postgres:17 is MIRROR/library/postgres:17."""
    if not mirror:
        return reference
    first, slash, rest = reference.partition("/")
    if not slash:
        return f"{mirror}/library/{reference}"
    names_a_registry = "." in first or ":" in first or first == "localhost"
    return f"{mirror}/{rest if names_a_registry else reference}"


def reference(name: str, settings: Settings) -> str:
    """The image of a name in the table under these settings: override, else the table's by version, digest and mirror."""
    if override := settings.general.images.get(name):
        return override
    official = TABLE[name]
    if name.startswith("langfuse-"):
        official = f"{official.partition(':')[0]}:{settings.langfuse.version}"
    if digest := digests().get(official):
        official = f"{official}@{digest}"
    return mirrored(official, settings.general.registry_mirror)


def _context_files(context: Path) -> Iterator[Path]:
    for path in sorted(context.rglob("*")):
        if path.is_file() and "__pycache__" not in path.parts:
            yield path


def context_hash(context: Path) -> str:
    """A hash of all files of a build context, names included."""
    total = hashlib.sha256()
    for path in _context_files(context):
        # Not the whole mode: that of a checkout depends on whose it is.
        executable = 0o111 if path.stat().st_mode & 0o100 else 0
        total.update(f"{path.relative_to(context)}\0{executable}\0".encode())
        total.update(hashlib.sha256(path.read_bytes()).digest())
    return total.hexdigest()


class Images:
    """The images of a stack, each declared once, when something first asks for it. They stay on the engine when the stack goes."""

    def __init__(self, settings: Settings, parent: pulumi.Resource) -> None:
        self._settings = settings
        self._parent = parent
        self._declared: dict[str, docker.RemoteImage] = {}

    def version(self, name: str) -> str:
        """The version to show for a name; an image that the settings name in place of the table's is shown in full."""
        if override := self._settings.general.images.get(name):
            return override
        return (
            self._settings.mlflow.version if name == "mlflow" else version_of(reference(name, self._settings))
        )

    def id(self, name: str) -> pulumi.Output[str]:
        """The image's id. One the engine has is taken as it is, another one is pulled, MLflow's is built."""
        if name not in self._declared:
            own = name == "mlflow" and name not in self._settings.general.images
            self._declared[name] = self._mlflow() if own else self._pulled(name)
        return self._declared[name].image_id

    def _pulled(self, name: str) -> docker.RemoteImage:
        return docker.RemoteImage(
            f"image-{name}",
            name=reference(name, self._settings),
            keep_locally=True,
            opts=pulumi.ResourceOptions(parent=self._parent),
        )

    def _mlflow(self) -> docker.RemoteImage:
        base, version = reference("python", self._settings), self._settings.mlflow.version
        inputs = hashlib.sha256(f"{base}\0{version}\0{context_hash(_MLFLOW_CONTEXT)}".encode()).hexdigest()
        return docker.RemoteImage(
            "image-mlflow",
            # The tag says what went in, so another state of the folder is another image.
            name=f"mlops-stack/mlflow:{version}-{inputs[:12]}",
            build=docker.RemoteImageBuildArgs(
                context=str(_MLFLOW_CONTEXT),
                build_args={"BASE_IMAGE": base, "MLFLOW_VERSION": version},
            ),
            triggers={"base": self.id("python")},
            keep_locally=True,
            opts=pulumi.ResourceOptions(parent=self._parent),
        )
