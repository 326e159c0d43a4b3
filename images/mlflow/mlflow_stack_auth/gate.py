"""The gate in front of the whole server: nothing but `/health` is answered to a stranger.

It wraps the server's application from outside, so a route that MLflow forgot to protect is closed as well.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field

_SAFE_METHODS = frozenset({"GET", "HEAD", "OPTIONS"})


@dataclass(frozen=True)
class Refusal:
    """An answer that ends a request."""

    status: str
    text: str
    headers: tuple[tuple[str, str], ...] = ()

    @property
    def all_headers(self) -> list[tuple[str, str]]:
        """With what every answer needs."""
        length = str(len(self.body))
        return [*self.headers, ("Content-Type", "text/plain; charset=utf-8"), ("Content-Length", length)]

    @property
    def body(self) -> bytes:
        """The text as sent."""
        return (self.text + "\n").encode()


UNAUTHENTICATED = Refusal(
    "401 Unauthorized",
    "You are not authenticated. Send the user name and password of an MLflow user by HTTP Basic authentication.",
    (("WWW-Authenticate", 'Basic realm="mlflow"'),),
)
_WRONG_HOST = Refusal("403 Forbidden", "This server does not answer to the host name of the request.")
_WRONG_ORIGIN = Refusal("403 Forbidden", "Pages of another site may not change anything here.")


def too_many(retry_after: int) -> Refusal:
    """The answer to who guesses."""
    return Refusal(
        "429 Too Many Requests",
        f"Too many wrong passwords. Try again in {retry_after} s.",
        (("Retry-After", str(retry_after)),),
    )


@dataclass(frozen=True)
class Request:
    """What the gate looks at."""

    method: str
    path: str
    address: str
    headers: dict[str, str] = field(repr=False)


def _patterns(text: str) -> list[re.Pattern[str]]:
    names = [name.strip().lower() for name in text.split(",") if name.strip()]
    return [re.compile(re.escape(name).replace(r"\*", ".*")) for name in names]


class Gate:
    """Decides over a request; `login` says why credentials are refused, or None."""

    def __init__(
        self, login: Callable[[str | None, str], Refusal | None], hosts: str, origins: str = ""
    ) -> None:
        self._login = login
        self._hosts = _patterns(hosts)
        self._origins = _patterns(origins)

    def refusal(self, request: Request) -> Refusal | None:
        """Why the request goes no further, or None if it may."""
        host = request.headers.get("host", "").lower()
        if not any(pattern.fullmatch(host) for pattern in self._hosts):
            return _WRONG_HOST
        if request.path == "/health" and request.method in ("GET", "HEAD"):
            return None
        # A browser sends the user's credentials along with what a foreign page asks for.
        if request.method not in _SAFE_METHODS and not self._same_site(request, host):
            return _WRONG_ORIGIN
        return self._login(request.headers.get("authorization"), request.address)

    def _same_site(self, request: Request, host: str) -> bool:
        origin = request.headers.get("origin", "").lower()
        if not origin:
            return True
        scheme, _, rest = origin.partition("://")
        return bool(scheme and rest == host) or any(p.fullmatch(origin) for p in self._origins)
