"""How this project says that something is wrong: what, why, and what to do about it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Problem:
    """One thing that must be put right: the setting (or the thing) it is about, what is wrong with it, and the fix."""

    key: str
    problem: str
    fix: str

    def __str__(self) -> str:
        return f"{self.key}: {self.problem}\n    fix: {self.fix}"


class ProblemsError(Exception):
    """All problems found at once, so that a person corrects them in one go. Nothing has been changed yet."""

    def __init__(self, heading: str, problems: Sequence[Problem]) -> None:
        self.problems = tuple(problems)
        super().__init__("\n  ".join([heading, *(str(problem) for problem in problems)]))


class Refused(Exception):
    """Raised by a check: the value's problem and its fix, without the value where it may be a secret."""

    def __init__(self, problem: str, fix: str) -> None:
        super().__init__(f"{problem}; {fix}")
        self.problem = problem
        self.fix = fix
