"""The image's package lies outside the project's packages; its parts without MLflow are tested here."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[3] / "images" / "mlflow"))
