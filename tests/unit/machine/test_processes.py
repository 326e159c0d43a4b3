"""What ends a command, and that it may still put right what it began."""

from __future__ import annotations

import signal
import subprocess
import sys

import pytest

from scripts.machine.paths import ROOT

_WORK = """\
import os, signal, sys
from scripts.machine.processes import interruptible, say
# Set either way: what this runs under may ignore it, too.
signal.signal(signal.SIGHUP, signal.SIG_IGN if sys.argv[2:] == ["ignored"] else signal.SIG_DFL)
try:
    with interruptible():
        os.kill(os.getpid(), int(sys.argv[1]))
        print("went on")
except KeyboardInterrupt:
    os.close(2)  # as a terminal that is gone
    say("starting again")
    print("put right")
"""


@pytest.mark.parametrize(
    ("number", "arguments", "printed"),
    [
        (signal.SIGINT, [], "put right"),
        (signal.SIGTERM, [], "put right"),
        (signal.SIGHUP, [], "put right"),
        (signal.SIGHUP, ["ignored"], "went on"),
    ],
)
def test_what_was_begun_is_put_right(number: int, arguments: list[str], printed: str) -> None:
    command = [sys.executable, "-c", _WORK, str(int(number)), *arguments]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert (done.stdout.strip(), done.returncode) == (printed, 0), done.stderr
