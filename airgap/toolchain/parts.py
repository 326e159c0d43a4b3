"""What the toolchain consists of: one Go module, and one binary, each."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

_MODULES = Path(__file__).parent / "modules"
_SDK_VERSION = "github.com/pulumi/pulumi/sdk/v3/go/common/version.Version"


@dataclass(frozen=True, kw_only=True)
class Part:
    """A binary and how it is built; `module` holds its go.mod and go.sum, and what main.go we add."""

    name: str
    version: str
    binary: str
    package: str = "."
    variables: tuple[tuple[str, str], ...] = ()
    """What the linker writes into the binary, so that it says its version."""
    cold: str
    """How long it takes with nothing in Go's caches, on two cores."""
    scripts: tuple[str, ...] = ()
    """Files of Pulumi's Python SDK module that belong next to the binary."""

    @property
    def module(self) -> Path:
        return _MODULES / self.name


PULUMI = Part(
    name="pulumi",
    version="v3.259.0",
    binary="pulumi",
    package="github.com/pulumi/pulumi/pkg/v3/cmd/pulumi",
    variables=((_SDK_VERSION, "v3.259.0"),),
    cold="6 minutes",
)
LANGUAGE_PYTHON = Part(
    name="language-python",
    version="v3.79.0",
    binary="pulumi-language-python",
    package="github.com/pulumi/pulumi/sdk/v3/python/cmd/pulumi-language-python",
    variables=((_SDK_VERSION, "v3.79.0"),),
    cold="1 minute",
    scripts=("python/cmd/pulumi-language-python-exec", "python/dist/pulumi-resource-pulumi-python"),
)
# The plugins' versions are those that the Python SDKs of requirements.txt ask for.
RANDOM = Part(
    name="random",
    version="v4.21.4",
    binary="pulumi-resource-random",
    variables=(("main.version", "4.21.4"),),
    cold="2 minutes",
)
DOCKER = Part(
    name="docker",
    version="v5.2.0",
    binary="pulumi-resource-docker",
    variables=(("main.version", "5.2.0"),),
    cold="5 minutes",
)
MINIO = Part(
    name="minio",
    version="RELEASE.2025-09-07T16-13-09Z",
    binary="minio",
    package="github.com/minio/minio",
    variables=(
        ("github.com/minio/minio/cmd.Version", "2025-09-07T16:13:09Z"),
        ("github.com/minio/minio/cmd.ReleaseTag", "RELEASE.2025-09-07T16-13-09Z"),
        ("github.com/minio/minio/cmd.CopyrightYear", "2025"),
    ),
    cold="3 minutes",
)
MC = Part(
    name="mc",
    version="RELEASE.2025-08-13T08-35-41Z",
    binary="mc",
    package="github.com/minio/mc",
    variables=(
        ("github.com/minio/mc/cmd.Version", "2025-08-13T08:35:41Z"),
        ("github.com/minio/mc/cmd.ReleaseTag", "RELEASE.2025-08-13T08-35-41Z"),
        ("github.com/minio/mc/cmd.CopyrightYear", "2025"),
    ),
    cold="1 minute",
)
# For the benchmarks alone, which compare with it where the docker command does not have it.
COMPOSE = Part(
    name="compose",
    version="v2.40.3",
    binary="docker-compose",
    package="github.com/docker/compose/v2/cmd",
    variables=(("github.com/docker/compose/v2/internal.Version", "v2.40.3"),),
    cold="3 minutes",
)

PARTS = {part.name: part for part in (PULUMI, LANGUAGE_PYTHON, RANDOM, DOCKER, MINIO, MC, COMPOSE)}
PLUGINS = (DOCKER, RANDOM)
