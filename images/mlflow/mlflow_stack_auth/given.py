"""What the container was given, as files and variables. It imports next to nothing: the health check runs every few seconds."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

SECRETS = Path("/run/secrets")


class StartError(Exception):
    """The server cannot start; the text says what to change."""


def required(name: str, environment: Mapping[str, str] = os.environ) -> str:
    """A variable that must be there."""
    value = environment.get(name, "")
    if not value:
        raise StartError(f"{name} is not set: give it as a variable or as the file {SECRETS / name}.")
    return value
