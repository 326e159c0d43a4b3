"""The stack as a file of docker compose, made from the stack's own state, so that both run the same containers."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from airgap.toolchain import ensure

PROJECT = "mlops-stack-bench"
_CONTAINER = "docker:index/container:Container"
_NETWORK = "docker:index/network:Network"
_VOLUME = "docker:index/volume:Volume"
_SECRET = "plaintext"


def dependencies(resources: Iterable[Mapping[str, Any]]) -> dict[str, set[str]]:
    """Service -> the services that it waits for, from the state's resources."""
    containers = {item["urn"]: _name(item) for item in resources if item["type"] == _CONTAINER}
    return {
        containers[item["urn"]]: {
            containers[urn] for urn in item.get("dependencies", ()) if urn in containers
        }
        for item in resources
        if item["urn"] in containers
    }


def generate(
    resources: Iterable[Mapping[str, Any]], images: Mapping[str, str], files: Path
) -> dict[str, Any]:
    """The compose file's content. What the provider uploads is written below `files` and mounted from there.

    `resources` are those of `pulumi stack export --show-secrets`; `images` maps an image's id to a tag of it, as compose takes
    no ids.
    """
    resources = list(resources)
    needs = dependencies(resources)
    inputs = {
        kind: {_name(item): _plain(item["inputs"]) for item in resources if item["type"] == kind}
        for kind in (_CONTAINER, _NETWORK, _VOLUME)
    }
    once = {name for name, given in inputs[_CONTAINER].items() if given.get("restart") == "no"}
    services = {}
    for name, given in inputs[_CONTAINER].items():
        service = _service(given, images, _written(given, files / name))
        service["depends_on"] = {
            other: {
                "condition": "service_completed_successfully" if other in once else "service_healthy",
            }
            for other in sorted(needs[name])
        }
        services[name] = service
    return {
        "name": PROJECT,
        "services": services,
        # The names are the stack's, so those are also the keys by which services refer to them.
        "networks": {
            given["name"]: {"name": given["name"], "internal": given["internal"], "driver": given["driver"]}
            for given in inputs[_NETWORK].values()
        },
        "volumes": {given["name"]: {"name": given["name"]} for given in inputs[_VOLUME].values()},
    }


def _name(resource: Mapping[str, Any]) -> str:
    return str(resource["urn"]).rpartition("::")[2]


def _plain(value: Any) -> Any:
    """A value of the state without the wrapping of secrets."""
    if isinstance(value, dict):
        if _SECRET in value:
            return json.loads(value[_SECRET])
        return {key: _plain(item) for key, item in value.items() if not key.startswith("__")}
    return [_plain(item) for item in value] if isinstance(value, list) else value


def _written(given: Mapping[str, Any], folder: Path) -> dict[str, Path]:
    """Path in the container -> file that was written for it."""
    found = {}
    for upload in given.get("uploads", ()):
        file = folder / upload["file"].strip("/").replace("/", "_")
        file.parent.mkdir(parents=True, exist_ok=True)
        file.unlink(missing_ok=True)
        file.write_text(upload["content"])
        file.chmod(0o444)
        found[upload["file"]] = file
    return found


def _service(
    given: Mapping[str, Any], images: Mapping[str, str], files: Mapping[str, Path]
) -> dict[str, Any]:
    service: dict[str, Any] = {
        "container_name": given["name"],
        "image": images[given["image"]],
        "pull_policy": "never",
        "environment": literal(given.get("envs", [])),
        "volumes": [
            *(
                {"type": "volume", "source": item["volumeName"], "target": item["containerPath"]}
                for item in given.get("volumes", ())
            ),
            *(
                {"type": "bind", "source": str(file), "target": path, "read_only": True}
                for path, file in files.items()
            ),
        ],
        "networks": {
            item["name"]: {"aliases": item.get("aliases") or []} for item in given["networksAdvanced"]
        },
        "ports": [f"{item['ip']}:{item['external']}:{item['internal']}" for item in given.get("ports", ())],
        "cap_drop": given["capabilities"].get("drops", []),
        "cap_add": given["capabilities"].get("adds", []),
        "security_opt": given["securityOpts"],
        "mem_limit": f"{given['memory']}m",
        "memswap_limit": f"{given['memorySwap']}m",
        "logging": {"driver": given["logDriver"], "options": given["logOpts"]},
        "stop_grace_period": f"{given['stopTimeout']}s",
        "restart": given["restart"],
    }
    for ours, theirs in (("entrypoints", "entrypoint"), ("command", "command")):
        if given.get(ours):
            service[theirs] = literal(given[ours])
    if health := given.get("healthcheck"):
        service["healthcheck"] = {
            "test": literal(health["tests"]),
            **{key: health[key] for key in ("interval", "timeout", "retries")},
            "start_period": health["startPeriod"],
        }
    return service


def literal(texts: Iterable[str]) -> list[str]:
    """Compose takes $ for the beginning of a variable of its own."""
    return [text.replace("$", "$$") for text in texts]


@dataclass(frozen=True)
class Compose:
    """`docker compose` on one file."""

    file: Path
    environment: Mapping[str, str]

    @classmethod
    def prepared(cls, folder: Path, content: Mapping[str, Any]) -> Compose:
        """Write the file, and find compose: the docker command's own, else one built from Go modules."""
        file = folder / "compose.json"
        file.write_text(json.dumps(content, indent=1))
        file.chmod(0o600)
        environment = dict(os.environ)
        known = subprocess.run(["docker", "compose", "version"], capture_output=True, check=False)
        if known.returncode:
            # Beside the user's configuration, which stays as it is.
            plugins = folder / "docker" / "cli-plugins"
            plugins.mkdir(parents=True)
            shutil.copy2(ensure("compose"), plugins / "docker-compose")
            environment["DOCKER_CONFIG"] = str(plugins.parent)
        return cls(file, environment)

    def run(self, *arguments: str) -> str:
        """One command to its end; what it printed."""
        done = subprocess.run(
            ["docker", "compose", "--file", str(self.file), "--progress", "plain", *arguments],
            env=self.environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
        )
        if done.returncode:
            raise SystemExit(f"docker compose {' '.join(arguments)} failed:\n{done.stdout}")
        return done.stdout
