"""The images of a machine that no image registry answers: what each is made of, and what it really is."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

PREFIX = "mlops-stack-airgap"
FOLDER = Path(__file__).parent


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """One image: a Dockerfile's folder, the image it stands on, and what is laid into its build context."""

    name: str
    repository: str
    tag: str
    base: str = "debian"
    folder: Path
    target: str = ""
    binaries: tuple[str, ...] = ()
    needs_pip_conf: bool = False

    @property
    def reference(self) -> str:
        return f"{PREFIX}/{self.repository}:{self.tag}"


def _recipe(
    name: str, tag: str, *, folder: str = "", repository: str = "", base: str = "debian", **more
) -> Recipe:
    return Recipe(
        name=name, tag=tag, repository=repository or name, base=base, folder=FOLDER / (folder or name), **more
    )


DEBIAN = _recipe("debian", "bookworm", base="")

RECIPES: dict[str, Recipe] = {
    recipe.name: recipe
    for recipe in (
        _recipe("python", "3.11", needs_pip_conf=True),
        _recipe("postgres", "15"),
        _recipe("minio", "RELEASE.2025-09-07T16-13-09Z", binaries=("minio", "mc")),
        _recipe("mc", "RELEASE.2025-08-13T08-35-41Z", binaries=("mc",)),
        _recipe("redis", "7.0"),
        _recipe("clickhouse", "18.16"),
        *(
            _recipe(
                f"langfuse-{half}",
                "1",
                repository=f"langfuse-double-{half}",
                base="python",
                folder="langfuse_double",
                target=half,
            )
            for half in ("web", "worker")
        ),
    )
}
