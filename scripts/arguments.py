"""Command lines of which a part may be a password: a refusal names the option, and repeats no value that argparse would."""

from __future__ import annotations

import argparse
import re
from collections.abc import Callable, Sequence
from typing import Any, NoReturn, TypeVar

from components.problems import Refused

T = TypeVar("T")


class ArgumentParser(argparse.ArgumentParser):
    """Takes options by their whole names only, and tells what is wrong without what was typed as a value.

    A password gets to where none belongs by a slip: `--pasword SECRET`, `--password-stdin SECRET`, `-pSECRET`, one with spaces
    and no quotes.
    """

    def __init__(self, **more: Any) -> None:
        super().__init__(**{"allow_abbrev": False, **more})

    # argparse types namespaces of one's own, which nobody here has.
    def parse_args(self, args: Sequence[str] | None = None, namespace: Any = None) -> Any:  # type: ignore[override]
        known, rest = self.parse_known_args(args, namespace)
        if rest:
            self.error(_unrecognized(rest))
        return known

    def error(self, message: str) -> NoReturn:
        message = re.sub(r"ignored explicit argument .*", "takes no value", message, flags=re.DOTALL)
        message = re.sub(r"invalid choice: .*(?= \(choose)", "invalid choice", message, flags=re.DOTALL)
        super().error(message)


def _unrecognized(rest: Sequence[str]) -> str:
    # What follows an unknown option may be its value, however it begins; -pSECRET is one, too.
    options = [match[0] for text in rest if (match := re.match(r"--[A-Za-z0-9-]*|-.?", text))]
    if options:
        return f"unrecognized arguments, from {options[0]} on"
    return f"{len(rest)} arguments that belong to no option; put quotes around a value with spaces"


def argument(check: Callable[[str], T]) -> Callable[[str], T]:
    """A check as an argument's type, so that argparse names the option to which its words belong."""

    def convert(value: str) -> T:
        try:
            value.encode()
        except UnicodeEncodeError:
            raise argparse.ArgumentTypeError("the value is not UTF-8") from None
        try:
            return check(value)
        except (Refused, ValueError) as error:
            raise argparse.ArgumentTypeError(str(error)) from None

    return convert


def _filled(value: str) -> str:
    if not value.strip():
        raise ValueError("the value is empty")
    return value


text = argument(str)
filled = argument(_filled)
