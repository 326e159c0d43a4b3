"""The real Langfuse SDK against the double."""

from __future__ import annotations

from pathlib import Path

from scripts.machine.paths import ROOT
from tests.contract.langfuse_double.stack import Stack
from tests.deployment import run_client

CHECKS = Path(__file__).with_name("sdk_checks.py")


def test_the_real_sdk_writes_and_reads(stack: Stack, client_python: Path) -> None:
    variables = {
        "LANGFUSE_HOST": stack.url,
        "LANGFUSE_PUBLIC_KEY": stack.credentials.public_key,
        "LANGFUSE_SECRET_KEY": stack.credentials.secret_key,
    }
    options = ("-q", "-p", "no:cacheprovider", "--noconftest")
    done = run_client(client_python, "-m", "pytest", *options, str(CHECKS), variables=variables, cwd=ROOT)
    assert "3 passed" in done
