"""Verified credentials, kept for a short time, and a limit on wrong ones."""

from __future__ import annotations

import hmac
import math
import secrets
import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass

_KNOWN = 10_000
_BUCKETS = 10_000
_STRIPES = 64


@dataclass(frozen=True)
class TooManyGuesses(Exception):
    """The user name or the address has sent too many wrong passwords."""

    retry_after: int


class Limiter:
    """Token buckets: `burst` attempts at once, then one every `seconds`. Holds the latest names only."""

    def __init__(self, burst: int, seconds: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._burst, self._seconds, self._clock = burst, seconds, clock
        self._buckets: OrderedDict[str, tuple[float, float]] = OrderedDict()
        self._lock = threading.Lock()

    def take(self, name: str) -> None:
        """Take one attempt before the password is looked at, so that parallel guesses cannot slip through."""
        with self._lock:
            left = self._left(name)
            if left < 1:
                raise TooManyGuesses(math.ceil((1 - left) * self._seconds))
            self._set(name, left - 1)

    def give_back(self, name: str) -> None:
        """The password was right: it was no guess."""
        with self._lock:
            self._set(name, min(self._burst, self._left(name) + 1))

    def _left(self, name: str) -> float:
        left, at = self._buckets.get(name, (float(self._burst), self._clock()))
        return min(self._burst, left + (self._clock() - at) / self._seconds)

    def _set(self, name: str, left: float) -> None:
        self._buckets[name] = (left, self._clock())
        self._buckets.move_to_end(name)
        while len(self._buckets) > _BUCKETS:
            self._buckets.popitem(last=False)


class Credentials:
    """Answers whether a password is right, asking `check` (slow on purpose) as seldom as `ttl` allows.

    Kept is a keyed hash whose key never leaves the process. Credentials that were right before are looked up
    without the limit even when their time is over: nobody who guesses can lock out who knows the password.
    """

    def __init__(
        self,
        check: Callable[[str, str], bool],
        ttl: float,
        *,
        by_user: Limiter,
        by_address: Limiter,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._check, self._ttl, self._clock = check, ttl, clock
        self._by_user, self._by_address = by_user, by_address
        self._key = secrets.token_bytes(32)
        self._known: OrderedDict[bytes, tuple[str, float]] = OrderedDict()
        self._changes = 0
        self._lock = threading.Lock()
        # Equal credentials that arrive together are hashed once.
        self._stripes = [threading.Lock() for _ in range(_STRIPES)]

    def valid(self, username: str, password: str, address: str) -> bool:
        """Whether the password is the user's; raises `TooManyGuesses` where there were too many wrong ones."""
        digest = self._digest(username, password)
        if self._fresh(digest):
            return True
        with self._stripes[digest[0] % _STRIPES]:
            if self._fresh(digest):
                return True
            with self._lock:
                known, changes = digest in self._known, self._changes
            if not known:
                self._by_address.take(address)
                self._by_user.take(username)
            right = self._check(username, password)
            if right and not known:
                self._by_user.give_back(username)
                self._by_address.give_back(address)
            self._remember(digest, username, right, changes)
            return right

    def forget(self, username: str) -> None:
        """The user was changed or deleted here: what was verified before counts no more."""
        with self._lock:
            self._changes += 1
            for digest in [digest for digest, (name, _) in self._known.items() if name == username]:
                del self._known[digest]

    def _digest(self, username: str, password: str) -> bytes:
        name = username.encode()
        return hmac.digest(self._key, len(name).to_bytes(8, "big") + name + password.encode(), "sha256")

    def _fresh(self, digest: bytes) -> bool:
        with self._lock:
            entry = self._known.get(digest)
            if entry is None or self._clock() - entry[1] >= self._ttl:
                return False
            self._known.move_to_end(digest)
            return True

    def _remember(self, digest: bytes, username: str, right: bool, changes: int) -> None:
        with self._lock:
            if not right:
                self._known.pop(digest, None)
            elif changes == self._changes:
                self._known[digest] = (username, self._clock())
                self._known.move_to_end(digest)
                while len(self._known) > _KNOWN:
                    self._known.popitem(last=False)
