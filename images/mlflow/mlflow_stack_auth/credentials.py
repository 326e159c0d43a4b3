"""Verified credentials, kept for a short time, and a limit on wrong ones."""

from __future__ import annotations

import hmac
import math
import os
import secrets
import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from mmap import mmap
from pathlib import Path

_KNOWN = 10_000
_BUCKETS = 10_000
_STRIPES = 64
_MARK_BYTES = 8


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


class Changes:
    """A mark that all processes of the server share in a file's memory: another one after each change of a user."""

    def __init__(self, file: Path) -> None:
        descriptor = os.open(file, os.O_RDWR | os.O_CREAT, 0o600)
        try:
            os.ftruncate(descriptor, _MARK_BYTES)
            self._shared = mmap(descriptor, _MARK_BYTES)
        finally:
            os.close(descriptor)

    def tell(self) -> None:
        # Not a count: of two that count at the same time, one would be overlooked.
        self._shared[:] = secrets.token_bytes(_MARK_BYTES)

    def latest(self) -> bytes:
        return self._shared[:]


class Credentials:
    """Answers whether a password is right, asking `check` (slow on purpose) as seldom as `ttl` allows.

    Kept is a keyed hash whose key never leaves the process. Credentials that were right before are looked up
    without the limit even when their time is over: nobody who guesses can lock out who has logged in since the server started.
    """

    def __init__(
        self,
        check: Callable[[str, str], bool],
        ttl: float,
        changes: Changes,
        *,
        by_user: Limiter,
        by_address: Limiter,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._check, self._ttl, self._clock = check, ttl, clock
        self._by_user, self._by_address = by_user, by_address
        self._key = secrets.token_bytes(32)
        self._known: OrderedDict[bytes, float] = OrderedDict()
        self._changes, self._seen = changes, changes.latest()
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
                known, latest = digest in self._known, self._changes.latest()
            if not known:
                self._by_address.take(address)
                self._by_user.take(username)
            right = self._check(username, password)
            if right and not known:
                self._by_user.give_back(username)
                self._by_address.give_back(address)
            self._remember(digest, right, latest)
            return right

    def _digest(self, username: str, password: str) -> bytes:
        name = username.encode()
        return hmac.digest(self._key, len(name).to_bytes(8, "big") + name + password.encode(), "sha256")

    def _fresh(self, digest: bytes) -> bool:
        with self._lock:
            self._expire_after_a_change()
            verified = self._known.get(digest)
            if verified is None or self._clock() - verified >= self._ttl:
                return False
            self._known.move_to_end(digest)
            return True

    def _expire_after_a_change(self) -> None:
        """What was verified before a user was changed, in whichever process, is looked at anew."""
        latest = self._changes.latest()
        if latest != self._seen:
            self._seen = latest
            self._known = OrderedDict.fromkeys(self._known, -math.inf)

    def _remember(self, digest: bytes, right: bool, latest: bytes) -> None:
        with self._lock:
            if not right:
                self._known.pop(digest, None)
            elif latest == self._changes.latest():
                self._known[digest] = self._clock()
                self._known.move_to_end(digest)
                while len(self._known) > _KNOWN:
                    self._known.popitem(last=False)
