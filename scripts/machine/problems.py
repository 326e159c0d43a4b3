"""How a script says that it cannot go on."""

from __future__ import annotations


class Problem(Exception):
    """What is wrong, and what its reader can do about it."""

    def __init__(self, message: str, fix: str) -> None:
        super().__init__(message, fix)
        self.message = message
        self.fix = fix

    def __str__(self) -> str:
        return f"{self.message}\n  fix: {self.fix}"
