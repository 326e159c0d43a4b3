"""Images for a machine that no image registry answers: built here, and written into the stack's settings."""

from __future__ import annotations

import json
import urllib.error
import urllib.request
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from airgap import images as airgap
from airgap.images.recipes import PREFIX
from scripts.bootstrap.stack import Stack
from scripts.machine.paths import ROOT
from scripts.machine.problems import Problem
from scripts.machine.processes import Say, ask

HUB = "registry-1.docker.io"
DOUBLE = "--langfuse-double"
_PROBE_SECONDS = 5
_ASK_SECONDS = 60

_SHARED = ("postgres", "minio", "mc")
_MLFLOW = ("python", *_SHARED)
_LANGFUSE = (*_SHARED, "redis", "clickhouse", "langfuse-web", "langfuse-worker")
# Nothing that can be built here stands in for these: Debian's ClickHouse is too old for the real Langfuse.
_ONLY_OFFICIAL = ("clickhouse", "langfuse-web", "langfuse-worker")

# Runs in the project's environment. The table, the mirror and the digests have one home.
_REFERENCES = """
import json, sys
from types import SimpleNamespace as Some
from components.images import TABLE, reference
given = json.load(sys.stdin)
settings = Some(
    general=Some(images=given["images"], registry_mirror=given["mirror"]),
    langfuse=Some(version=given["langfuse"]),
)
print(json.dumps({name: reference(name, settings) for name in TABLE}))
"""


def prepare(stack: Stack, python: Path, say: Say, *, double: bool = False) -> None:
    """See to it that the engine has, or can pull, every image that the stack needs.

    Only what a person has not set is written into the stack's settings, image by image.
    """
    config = stack.config()
    overrides: dict[str, str] = config.get("images") or {}
    langfuse = double or config.get("langfuseEnabled", "true") == "true"
    wanted = _wanted(config, langfuse)
    if double:
        _double(stack, overrides, say)
        overrides = stack.config().get("images") or {}
    if built := [name for name in wanted if overrides.get(name, "").startswith(f"{PREFIX}/")]:
        say(
            f"Images: built here, as mlops-stack:images in {stack.config_file.name} says: {', '.join(built)} (docs/airgap.md)"
        )
        airgap.ensure(built, say)
    open_ones = [name for name in wanted if name not in overrides]
    if not open_ones:
        return
    references = _references(python, config)
    missing = [name for name in open_ones if not _on_engine(references[name])]
    if not missing or _registry_answers(str(config.get("registryMirror") or "")):
        return
    say("Images: no image registry answers (docs/airgap.md tells what that means)")
    lacking = [name for name in missing if name in _ONLY_OFFICIAL]
    if langfuse and lacking:
        _without_langfuse(stack, [references[name] for name in lacking], say)
        wanted = _wanted(config, langfuse=False)
        missing = [name for name in missing if name in wanted]
    _build(stack, missing, say)


def _wanted(config: Mapping[str, Any], langfuse: bool) -> list[str]:
    """The images of the products that are switched on; MLflow's own base only where MLflow's image is built."""
    names: list[str] = []
    if config.get("mlflowEnabled", "true") == "true":
        names += [
            name for name in _MLFLOW if name != "python" or "mlflow" not in (config.get("images") or {})
        ]
    if langfuse:
        names += _LANGFUSE
    return list(dict.fromkeys(names))


def is_double(reference: str) -> bool:
    """Whether an image is the contract double of Langfuse."""
    return reference.startswith(f"{PREFIX}/langfuse-double")


def _double(stack: Stack, overrides: Mapping[str, str], say: Say) -> None:
    say(
        "Langfuse: its contract double is deployed, as you asked. It is NOT Langfuse: it serves the API calls that clients and "
        "checks make, over this stack's real stores, and has no user interface (docs/langfuse-double.md)"
    )
    names = ("redis", "clickhouse", "langfuse-web", "langfuse-worker")
    _build(stack, [name for name in names if name not in overrides], say)
    if stack.sets("langfuseEnabled"):
        stack.set_config("langfuseEnabled", "true")


def _without_langfuse(stack: Stack, lacking: Iterable[str], say: Say) -> None:
    what = f"no registry answers and the engine does not have {', '.join(lacking)}"
    roads = (
        "docker load the images, or set mlops-stack:registryMirror to a registry of yours (docs/airgap.md); "
        f"or deploy a contract double in Langfuse's place: {stack.make('up', DOUBLE)}"
    )
    if stack.sets("langfuseEnabled"):
        raise Problem(f"Langfuse is switched on by mlops-stack:langfuseEnabled, but {what}", roads)
    stack.set_config("langfuseEnabled", "false")
    say(
        f"Langfuse: NOT deployed, mlops-stack:langfuseEnabled is now false: {what}\n"
        f"  to have it: {roads}; then, but for the double: pulumi config set langfuseEnabled true"
    )


def _build(stack: Stack, names: Iterable[str], say: Say) -> None:
    """Build images, and have the stack use them."""
    for name, reference in airgap.ensure(names, say).items():
        stack.set_config(f'images["{name}"]', reference)


def _references(python: Path, config: Mapping[str, Any]) -> dict[str, str]:
    given = {
        "images": config.get("images") or {},
        "mirror": config.get("registryMirror") or "",
        "langfuse": config["langfuseVersion"],
    }
    answer = ask([str(python), "-c", _REFERENCES], cwd=ROOT, text=json.dumps(given), timeout=_ASK_SECONDS)
    if answer.code:
        raise Problem(
            f"reading components/images.py failed: {answer.reason}", "run this in a complete checkout"
        )
    found: dict[str, str] = json.loads(answer.out)
    return found


def _on_engine(reference: str) -> bool:
    return (
        ask(["docker", "image", "inspect", "--format", "{{.Id}}", reference], timeout=_ASK_SECONDS).code == 0
    )


def _registry_answers(mirror: str) -> bool:
    """Whether images can be pulled: from the stack's mirror, else from Docker Hub or a mirror of the engine's own."""
    if mirror:
        return _answers(mirror)
    info = ask(["docker", "info", "--format", "{{json .RegistryConfig.Mirrors}}"], timeout=_ASK_SECONDS)
    mirrors: list[str] = json.loads(info.out or "null") or [] if info.code == 0 else []
    return any(map(_answers, [HUB, *mirrors]))


def _answers(address: str) -> bool:
    scheme, _, rest = address.rpartition("://")
    host = rest.partition("/")[0]
    return any(_is_registry(f"{way}://{host}/v2/") for way in ([scheme] if scheme else ["https", "http"]))


def _is_registry(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=_PROBE_SECONDS) as answer:
            return bool(answer.status == 200)
    except urllib.error.HTTPError as error:
        return error.code == 401  # a registry asks for a token; a proxy that refuses answers something else
    except (OSError, ValueError):
        return False
