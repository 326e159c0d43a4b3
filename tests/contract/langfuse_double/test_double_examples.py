"""The example that needs Langfuse alone, from the environment alone, run as its README says."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path

from tests.contract.langfuse_double.stack import Stack

EXAMPLE = Path(__file__).parents[3] / "examples" / "prompt_management.py"


def test_prompt_management_makes_one_version_and_links_it(
    stack: Stack, client_python: Path, tmp_path: Path
) -> None:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("LANGFUSE")}
    environment |= {
        "LANGFUSE_HOST": stack.url,
        "LANGFUSE_PUBLIC_KEY": stack.credentials.public_key,
        "LANGFUSE_SECRET_KEY": stack.credentials.secret_key,
    }
    for _ in range(2):
        command = [str(client_python), "-W", "error::DeprecationWarning:__main__", str(EXAMPLE)]
        done = subprocess.run(
            command, env=environment, cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False
        )
        assert done.returncode == 0, done.stderr
        assert "version 1, labels latest, production" in done.stdout
        assert "user: What should I know about AI safety?" in done.stdout
    (trace_id,) = re.findall(f"{stack.url}/project/project/traces/([0-9a-f]{{32}})", done.stdout)
    (generation,) = stack.trace(trace_id)["observations"]
    assert (generation["promptName"], generation["promptVersion"]) == ("example/research", 1)
