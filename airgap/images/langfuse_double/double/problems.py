"""What may go wrong with a store, told apart from what is wrong with a request."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager


class StoreProblem(Exception):
    """A store does not do its work now; the same call may succeed later."""

    def __init__(self, store: str, reason: object) -> None:
        super().__init__(f"{store}: {_first_line(reason)}")
        self.store = store


@contextmanager
def store(name: str, *errors: type[BaseException]) -> Iterator[None]:
    """Turn the client library's errors into a StoreProblem that names the store."""
    try:
        yield
    except errors as error:
        raise StoreProblem(name, error) from error


def _first_line(reason: object) -> str:
    return (str(reason).strip().splitlines() or [type(reason).__name__])[0][:300]
