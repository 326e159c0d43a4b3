"""Every secret that the stack generates, and how each one is changed later.

| secret | to change it | what happens |
| --- | --- | --- |
| Postgres passwords | set the key, `up` | the container restarts and sets the role's password before it listens |
| MinIO root user and password, Redis, ClickHouse | set the key, `up` | read at each start |
| MLflow's Flask key, NEXTAUTH_SECRET | set the key, `up` | sessions end |
| MLflow admin and users | set the key, `up` | changed over MLflow's API with the old password |
| Langfuse API keys | set both keys, `up`, delete the old pair in Langfuse | Langfuse makes the configured pair at each start, unless it is there |
| SALT, ENCRYPTION_KEY | never | Langfuse could no longer read what it stored; refused while it runs |
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Callable
from dataclasses import dataclass, field

import pulumi
import pulumi_random as random

from components.settings import PROJECT

_LENGTH = 32


@dataclass(frozen=True, kw_only=True)
class Secrets:
    """Makes secrets below a parent. Each is generated even where a setting overrides it: removing the setting brings it back.

    `keep` protects them like the volumes that they unlock: what is kept must stay readable.
    `made`: what volumes depend on, so that a `destroy` that is cut short never leaves data without its secrets.
    """

    parent: pulumi.Resource
    keep: bool
    made: list[pulumi.Resource] = field(default_factory=list)

    def password(self, name: str, override: str = "", length: int = _LENGTH) -> pulumi.Output[str]:
        """Letters and digits, which every consumer and every URL takes."""
        generated = self._generated(name, length=length)
        return self._choose(override, lambda: generated.result)

    def api_key(self, name: str, kind: str, override: str = "") -> pulumi.Output[str]:
        """A Langfuse API key, pk-lf-... or sk-lf-..."""
        generated = self._generated(name, length=_LENGTH)
        return self._choose(override, lambda: generated.result.apply(lambda text: f"{kind}-lf-{text}"))

    def base64(self, name: str, override: str = "") -> pulumi.Output[str]:
        """32 bytes in base64."""
        # Not RandomBytes: its id is its value, and ids are in the state in plain text.
        generated = self._generated(name, length=_LENGTH)
        return self._choose(override, lambda: generated.result.apply(_base64))

    def hex(self, name: str, override: str = "") -> pulumi.Output[str]:
        """32 bytes as 64 hexadecimal digits."""
        generated = self._generated(name, length=2 * _LENGTH)
        return self._choose(override, lambda: generated.result.apply(_digest))

    def _generated(self, name: str, *, length: int) -> random.RandomPassword:
        opts = pulumi.ResourceOptions(parent=self.parent, protect=self.keep)
        made = random.RandomPassword(name, length=length, special=False, opts=opts)
        self.made.append(made)
        return made

    @staticmethod
    def _choose(override: str, generated: Callable[[], pulumi.Output[str]]) -> pulumi.Output[str]:
        return pulumi.Output.secret(override or generated())


def fingerprint(key: str) -> str:
    """What tells one key from another and is of no use to whoever guesses keys."""
    return hashlib.pbkdf2_hmac("sha256", key.encode(), PROJECT.encode(), 100_000).hex()[:16]


def _base64(text: str) -> str:
    return base64.b64encode(text.encode()).decode()


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
