"""Running other programs: quietly for their answer, or in the foreground of the person who waits."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import NoReturn

from scripts.machine.problems import Problem

Say = Callable[[str], None]

SHOWN_LINES = 15
INTERRUPTED = 130


def say(line: str) -> None:
    """A line about what is going on, to standard error: standard output is for results."""
    # To a terminal that was closed: what is said in passing must not stop what is done.
    with suppress(OSError):
        print(line, file=sys.stderr, flush=True)


def end(main: Callable[[], int]) -> NoReturn:
    """End this program with what its main function returns, or by 1 with the Problem that it raises.

    In silence where the reader of its output has enough (`| head`).
    """
    code: int | str | None
    try:
        try:
            code = main()
        except SystemExit as ended:  # argparse's way
            code = ended.code
        except Problem as problem:
            say(str(problem))
            code = 1
        sys.stdout.flush()
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # the interpreter flushes once more
        code = 0
    sys.exit(code)


@dataclass(frozen=True)
class Answer:
    """How a program ended and what it wrote."""

    code: int
    out: str
    err: str

    @property
    def reason(self) -> str:
        """The last lines that may explain a failure."""
        return "\n".join((self.err.strip() or self.out.strip()).splitlines()[-SHOWN_LINES:])


def ask(
    command: Sequence[str],
    *,
    environment: Mapping[str, str] | None = None,
    cwd: Path | None = None,
    text: str | None = None,
    timeout: float | None = None,
    source: int = subprocess.DEVNULL,
    sink: int = subprocess.PIPE,
) -> Answer:
    """Run a program to its end; one that is not there, or takes too long, is an answer too.

    It reads the text, else from the descriptor `source`; what it writes is in the answer, or went to the descriptor `sink`.
    """
    stdin: dict[str, object] = {"stdin": source} if text is None else {"input": text}
    try:
        done = subprocess.run(  # type: ignore[call-overload]
            command,
            cwd=cwd,
            env=environment,
            stdout=sink,
            stderr=subprocess.PIPE,
            text=True,
            timeout=timeout,
            check=False,
            **stdin,
        )
    except FileNotFoundError:
        return Answer(127, "", f"{command[0]}: not found")
    except PermissionError:
        return Answer(126, "", f"{command[0]}: not executable")
    except subprocess.TimeoutExpired:
        return Answer(124, "", f"{command[0]}: no answer within {timeout:.0f} s")
    return Answer(done.returncode, done.stdout or "", done.stderr)


def foreground(
    command: Sequence[str], *, environment: Mapping[str, str] | None = None, cwd: Path | None = None
) -> int:
    """Run a program that people watch and may interrupt; its exit code.

    Ctrl-C reaches it from the terminal, and it gets the time to end in its own way. Where there is no terminal, and for
    other signals that ask for the end, one is handed on.
    """
    process: subprocess.Popen[bytes] | None = None
    asked_to_stop = False

    def hand_on(number: int, _: FrameType | None) -> None:
        nonlocal asked_to_stop
        asked_to_stop = True
        if process is not None and (number != signal.SIGINT or not os.isatty(0)):
            process.send_signal(signal.SIGINT)

    with _handling(hand_on):
        process = subprocess.Popen(command, cwd=cwd, env=environment)
        if asked_to_stop:
            process.send_signal(signal.SIGINT)
        code = process.wait()
    if asked_to_stop:
        return INTERRUPTED
    return 128 - code if code < 0 else code  # as shells tell of signals


@contextmanager
def interruptible() -> Iterator[None]:
    """Meanwhile SIGTERM and a terminal that is closed do what Ctrl-C does: KeyboardInterrupt, so that what was begun is put right."""

    def interrupt(_number: int, _: FrameType | None) -> None:
        raise KeyboardInterrupt

    with _handling(interrupt):
        yield


@contextmanager
def _handling(handler: Callable[[int, FrameType | None], None]) -> Iterator[None]:
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    numbers = [signal.SIGINT, signal.SIGTERM]
    if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:  # as nohup has it
        numbers.append(signal.SIGHUP)
    before = {number: signal.signal(number, handler) for number in numbers}
    try:
        yield
    finally:
        for number, old in before.items():
            signal.signal(number, old)


def logged(command: Sequence[str], log: Path, *, environment: Mapping[str, str] | None = None) -> Answer:
    """Run a program with all its output in a file; the answer carries the last lines."""
    with log.open("ab") as output:
        start = output.tell()
        try:
            code = subprocess.run(
                command,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                check=False,
            ).returncode
        except FileNotFoundError:
            return Answer(127, "", f"{command[0]}: not found")
    with log.open("rb") as written:
        written.seek(start)
        return Answer(code, "", written.read().decode(errors="replace"))
