"""Where things lie: those of the checkout, and those that outlive it."""

from __future__ import annotations

import os
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
"""The project's folder, from which Pulumi runs."""


def cache_dir() -> Path:
    """The folder of what is built or fetched once: $MLOPS_STACK_CACHE, or ~/.cache/mlops-stack."""
    folder = Path(os.environ.get("MLOPS_STACK_CACHE") or "~/.cache/mlops-stack").expanduser()
    folder.mkdir(parents=True, exist_ok=True)
    return folder
