"""Where the container finds what it was given. It imports next to nothing: the health check runs every few seconds."""

from __future__ import annotations

from pathlib import Path

SECRETS = Path("/run/secrets")
