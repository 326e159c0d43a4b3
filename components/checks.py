"""What the consumers of a setting accept. Each check returns the value to use, or raises `Refused` with problem and fix.

No check repeats a value that may be secret in its message.
"""

from __future__ import annotations

import base64
import binascii
import ipaddress
import re
from collections.abc import Callable, Mapping
from typing import Any
from urllib.parse import SplitResult, urlsplit

from components.problems import Refused

Check = Callable[[Any], Any]

PERMISSIONS = ("READ", "EDIT", "MANAGE", "NO_PERMISSIONS")
MLFLOW_VERSIONS = ("3.4.0", "3.17.2")
# What MLflow's own examples and older releases use; none of them may ever log in.
MLFLOW_DEFAULT_PASSWORDS = ("password1234", "password")

_MEMORY_UNITS = {"m": 1, "g": 1024}


def one_of(*allowed: str) -> Check:
    """A word out of a short list."""

    def check(value: str) -> str:
        if value not in allowed:
            raise Refused(
                f"{value!r} is not one of {', '.join(allowed)}", f"set it to one of {', '.join(allowed)}"
            )
        return value

    return check


def between(low: int, high: int) -> Check:
    """A whole number within bounds, both included."""

    def check(value: int) -> int:
        if not low <= value <= high:
            raise Refused(f"{value} is out of range", f"choose a number from {low} to {high}")
        return value

    return check


port = between(1, 65535)


def ip_address(value: str) -> str:
    """An IPv4 or IPv6 address to publish ports on (Docker takes no host names there)."""
    try:
        return str(ipaddress.ip_address(value))
    except ValueError:
        raise Refused(
            f"{value!r} is not an IP address", "use 127.0.0.1, or 0.0.0.0 for every interface"
        ) from None


def memory(value: str) -> int:
    """A memory limit such as 512m or 2g, in MiB. Docker refuses less than 6 MiB; nothing here runs in under 64."""
    match = re.fullmatch(r"([1-9][0-9]{0,6})([mg])", value)
    if not match:
        raise Refused(
            f"{value!r} is not a memory limit", "write a whole number and a unit, such as 512m or 2g"
        )
    mebibytes = int(match[1]) * _MEMORY_UNITS[match[2]]
    if not 64 <= mebibytes <= 4 * 1024 * 1024:
        raise Refused(f"{value!r} is out of range", "give at least 64m and at most 4096g")
    return mebibytes


def name_prefix(value: str) -> str:
    """What container, network and volume names of this stack begin with."""
    if value and not re.fullmatch(r"[a-z0-9](?:[a-z0-9-]{0,28}[a-z0-9])?-", value):
        raise Refused(
            f"{value!r} cannot begin a container name",
            "use up to 30 lower-case letters, digits and hyphens, and end it with a hyphen: team-a-",
        )
    return value


def host_list(value: list[str]) -> tuple[str, ...]:
    """Host names (with an optional port) that MLflow answers to."""
    for host in value:
        if not isinstance(host, str) or not re.fullmatch(r"[A-Za-z0-9.*\[\]:_-]{1,255}", host):
            raise Refused(
                f"{host!r} is not a host name", "give names such as mlflow.example.com, without http://"
            )
    return tuple(value)


def registry(value: str) -> str:
    """Host, optional port and path of a registry that mirrors the official images."""
    if value and not re.fullmatch(r"[a-z0-9][a-z0-9.-]*(?::[0-9]{1,5})?(?:/[a-z0-9._-]+)*", value):
        raise Refused(
            f"{value!r} is not a registry",
            "write host[:port][/path] without a scheme and without a closing slash: registry.example.com/mirror",
        )
    return value


def image_reference(value: str) -> str:
    """An image with an exact tag or digest: what floats would change under a running stack."""
    if not isinstance(value, str) or len(value) > 255:
        raise Refused("is not an image reference of at most 255 characters", "write repository:tag")
    match = re.fullmatch(
        r"(?P<name>[a-z0-9][a-z0-9._-]*(?::[0-9]+)?(?:/[a-z0-9]+(?:[._-]+[a-z0-9]+)*)*)"
        r"(?::(?P<tag>[A-Za-z0-9_][A-Za-z0-9._-]{0,127}))?(?P<digest>@sha256:[0-9a-f]{64})?",
        value,
    )
    if not match:
        raise Refused(f"{value!r} is not an image reference", "write repository:tag or repository@sha256:...")
    if match["tag"] == "latest" or not (match["tag"] or match["digest"]):
        raise Refused(
            f"{value!r} names no exact version", "add the version's tag or digest; latest is not taken"
        )
    return value


def images(known: tuple[str, ...]) -> Check:
    """A map from a known image name to the reference to use in its place."""

    def check(value: Mapping[str, Any]) -> dict[str, str]:
        for name, reference in value.items():
            if name not in known:
                raise Refused(f"no image is called {name!r}", f"name one of {', '.join(known)}")
            image_reference(reference)
        return dict(value)

    return check


def _printable(value: str) -> bool:
    return value.isprintable() and value.isascii()


def mlflow_user_name(value: str) -> str:
    """A name that Basic authentication and a URL carry: no colon, no spaces."""
    if not isinstance(value, str) or not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._@+-]{0,127}", value):
        raise Refused(
            f"{value!r} is not a user name MLflow can carry",
            "use letters, digits and . _ @ + -, beginning with a letter or a digit",
        )
    return value


def mlflow_password(value: str) -> str:
    """What MLflow takes (3.4.0 takes anything when one is changed), and its ini file can carry: no line breaks, no outer spaces."""
    if not isinstance(value, str):
        # Pulumi reads what stands in a list and has digits only as a number.
        raise Refused(
            "the password is a number or true or false, not text", "choose one with other characters"
        )
    if len(value) < 12:
        raise Refused("the password is shorter than 12 characters", "choose a longer one; MLflow asks for 12")
    if value in MLFLOW_DEFAULT_PASSWORDS:
        raise Refused("the password is one that MLflow's documentation publishes", "choose another one")
    if not _printable(value) or value != value.strip() or len(value) > 200:
        raise Refused(
            "the password is too long or has characters that MLflow's configuration file cannot carry",
            "use at most 200 printable ASCII characters, no spaces at either end",
        )
    return value


def langfuse_user_password(value: str) -> str:
    """Langfuse asks for 8 characters."""
    if len(value) < 8 or not _printable(value):
        raise Refused(
            "the password is shorter than 8 characters or not printable ASCII",
            "choose 8 printable characters or more",
        )
    return value


def store_password(value: str) -> str:
    """Store passwords end up in URLs, Langfuse's ClickHouse migrations put theirs there unescaped: letters and digits."""
    if not re.fullmatch(r"[A-Za-z0-9]{12,128}", value):
        raise Refused(
            "the password is not 12 to 128 letters and digits",
            "use letters and digits only: it is carried in URLs that do not escape it",
        )
    return value


def store_user(value: str) -> str:
    """A MinIO root user: at least 3 characters."""
    if not re.fullmatch(r"[A-Za-z0-9]{3,64}", value):
        raise Refused("the name is not 3 to 64 letters and digits", "use letters and digits only")
    return value


def sql_user(value: str) -> str:
    """A user of a database, which is also an element's name in ClickHouse's configuration."""
    if not re.fullmatch(r"[A-Za-z][A-Za-z0-9_]{0,62}", value):
        raise Refused(
            f"{value!r} is not a database user", "use letters, digits and _, beginning with a letter"
        )
    return value


def secret_text(length: int) -> Check:
    """An opaque secret of at least `length` characters."""

    def check(value: str) -> str:
        if len(value) < length or not _printable(value) or " " in value:
            raise Refused(
                f"the secret is shorter than {length} characters or not printable ASCII without spaces",
                f"give {length} characters or more: openssl rand -base64 32",
            )
        return value

    return check


def salt(value: str) -> str:
    """Langfuse's SALT: 32 bytes in base64, as its documentation generates it."""
    try:
        size = len(base64.b64decode(value, validate=True))
    except (binascii.Error, ValueError):
        size = 0
    if size < 32:
        raise Refused("the value is not base64 of at least 32 bytes", "generate it: openssl rand -base64 32")
    return value


def encryption_key(value: str) -> str:
    """Langfuse checks the length alone at its start and fails on other characters later, so both are checked here."""
    if not re.fullmatch(r"[0-9a-fA-F]{64}", value):
        raise Refused(
            f"the key must be 64 hexadecimal digits; it has {len(value)} characters"
            + (", some of them not hexadecimal" if len(value) == 64 else ""),
            "generate it: openssl rand -hex 32",
        )
    return value


def api_key(kind: str) -> Check:
    """A Langfuse API key: pk-lf-... or sk-lf-..."""

    def check(value: str) -> str:
        if not re.fullmatch(rf"{kind}-lf-[A-Za-z0-9-]{{8,128}}", value):
            raise Refused(
                f"the key does not look like {kind}-lf-...",
                f"write {kind}-lf- and 8 or more letters or digits",
            )
        return value

    return check


def email(value: str) -> str:
    """An e-mail address as Langfuse takes it: it starts with no other (zod's `email`, web/src/env.mjs)."""
    if (
        not re.fullmatch(
            r"[A-Za-z0-9_+-](?:[A-Za-z0-9._+-]*[A-Za-z0-9_+-])?@(?:[A-Za-z0-9][A-Za-z0-9-]*\.)+[A-Za-z]{2,}",
            value,
        )
        or ".." in value
    ):
        raise Refused(f"{value!r} is not an e-mail address", "write one such as ada@example.com")
    return value


def bucket(value: str) -> str:
    """S3's rules for bucket names."""
    if (
        not re.fullmatch(r"[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]", value)
        or ".." in value
        or ".-" in value
        or "-." in value
        or re.fullmatch(r"[0-9.]+", value)
        or value.startswith("xn--")
    ):
        raise Refused(
            f"{value!r} is not a bucket name that S3 accepts",
            "use 3 to 63 lower-case letters, digits and hyphens, beginning and ending with a letter or digit",
        )
    return value


def object_prefix(value: str) -> str:
    """Langfuse joins prefix and name without a slash of its own."""
    if value and (
        not re.fullmatch(r"[A-Za-z0-9._/-]+", value)
        or not value.endswith("/")
        or value.startswith("/")
        or "//" in value
    ):
        raise Refused(
            f"{value!r} is not an object prefix", "end it with a slash and do not begin with one: events/"
        )
    return value


def display_name(value: str) -> str:
    """A name people read, such as an organisation's."""
    if not value.strip() or len(value) > 60 or not value.isprintable():
        raise Refused(f"{value!r} is not a name of 1 to 60 printable characters", "choose a short name")
    return value


def identifier(value: str) -> str:
    """An id that stands in URLs."""
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_-]{0,62}", value):
        raise Refused(f"{value!r} is not an id", "use letters, digits, hyphens and underscores")
    return value


def region(value: str) -> str:
    """A region of S3, or none."""
    return value and identifier(value)


def _split(value: str, what: str, fix: str) -> SplitResult:
    try:
        parts = urlsplit(value)
        _ = parts.port
    except ValueError:
        raise Refused(f"the value is not {what}", fix) from None
    if any(c.isspace() for c in value) or not value.isprintable():
        raise Refused(f"the value is not {what}: it has spaces or control characters", fix)
    return parts


def public_url(value: str) -> str:
    """The address people open, as a reverse proxy serves it: scheme and host, nothing behind."""
    if not value:
        return value
    fix = "write scheme, host and optional port only: https://mlflow.example.com"
    parts = _split(value, "a URL", fix)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise Refused("the value is not an http(s) URL", fix)
    if parts.username or parts.password:
        raise Refused("the URL carries credentials", fix)
    if parts.path not in ("", "/") or parts.query or parts.fragment:
        raise Refused("the URL carries a path, a query or a fragment", fix)
    return value.rstrip("/")


def database_url(scheme: str) -> Check:
    """A managed Postgres: scheme://user:password@host:port/database. The scheme is what the consumer's driver takes."""

    def check(value: str) -> str:
        if not value:
            return value
        fix = f"write {scheme}://USER:PASSWORD@HOST:5432/DATABASE, special characters percent-encoded"
        parts = _split(value, "a database URL", fix)
        if parts.scheme != scheme:
            raise Refused(f"the URL does not begin with {scheme}://", fix)
        if not (parts.hostname and parts.username and parts.password and len(parts.path) > 1):
            raise Refused("the URL lacks host, user, password or database", fix)
        return value

    return check


def service_url(*schemes: str) -> Check:
    """The URL of a managed service, without credentials: they are settings of their own."""

    def check(value: str) -> str:
        if not value:
            return value
        fix = f"write {schemes[0]}://HOST:PORT"
        parts = _split(value, "a URL", fix)
        if parts.scheme not in schemes or not parts.hostname:
            raise Refused(
                f"the URL does not begin with {' or '.join(s + '://' for s in schemes)} and a host", fix
            )
        if parts.username or parts.password:
            raise Refused("the URL carries credentials", "give user and password in their own settings")
        return value

    return check


def redis_url(value: str) -> str:
    """A managed Redis, as Langfuse's REDIS_CONNECTION_STRING takes it."""
    if not value:
        return value
    fix = "write redis://[USER]:PASSWORD@HOST:6379 (rediss:// for TLS)"
    parts = _split(value, "a Redis URL", fix)
    if parts.scheme not in ("redis", "rediss") or not parts.hostname:
        raise Refused("the URL does not begin with redis:// or rediss:// and a host", fix)
    return value


def langfuse_version(value: str) -> str:
    """Langfuse v3; v4 changes what it needs and how it is read."""
    if not re.fullmatch(r"3\.[0-9]{1,4}\.[0-9]{1,3}", value):
        raise Refused(f"{value!r} is not a release of Langfuse v3", "use 3.225.4, or another 3.x.y")
    return value
