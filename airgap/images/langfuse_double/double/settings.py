"""The environment, checked first of all: as strictly as Langfuse does, and where it fails late, now."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from urllib.parse import urlsplit

Check = Callable[[str], str]  # what is wrong with a value, or ""

_BUCKET = re.compile(r"[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]")
_EMAIL = re.compile(r"[^@\s]+@[^@\s]+\.[^@\s]+")
_UNSAFE_IN_MIGRATION_URL = set("&=#?%+@ ")


class BadEnvironment(Exception):
    """One line for each variable that is missing or wrong."""


@dataclass(frozen=True)
class Bucket:
    """One of the S3 families: LANGFUSE_S3_<FAMILY>_*."""

    name: str
    prefix: str
    region: str
    endpoint: str
    access_key_id: str
    secret_access_key: str


@dataclass(frozen=True)
class Settings:
    """What web and worker need to know, and nothing that was not checked."""

    database_url: str
    clickhouse_url: str
    clickhouse_migration_url: str
    clickhouse_user: str
    clickhouse_password: str
    clickhouse_database: str
    redis_host: str
    redis_port: int
    redis_auth: str | None
    events: Bucket
    media: Bucket | None
    salt: str
    public_url: str
    signup_disabled: bool
    init: Mapping[str, str]
    host: str
    port: int


def _any(value: str) -> str:
    return ""


def _url(*schemes: str) -> Check:
    def check(value: str) -> str:
        parts = urlsplit(value)
        if parts.scheme not in schemes or not parts.hostname:
            return f"is not a URL of {' or '.join(scheme + '://' for scheme in schemes)}"
        return ""

    return check


def _hex_key(value: str) -> str:
    if re.fullmatch("[0-9a-fA-F]{64}", value):
        return ""
    return f"must be 64 hex digits (it has {len(value)} characters): openssl rand -hex 32"


def _clickhouse_password(value: str) -> str:
    unsafe = sorted(_UNSAFE_IN_MIGRATION_URL & set(value))
    return f"has {' '.join(map(repr, unsafe))}, which breaks the migration's URL" if unsafe else ""


def _port(value: str) -> str:
    return "" if value.isdigit() and 0 < int(value) < 65536 else f"is not a port: {value!r}"


def _one_of(*values: str) -> Check:
    return lambda value: "" if value in values else f"must be {' or '.join(values)}, not {value!r}"


def _bucket(value: str) -> str:
    return "" if _BUCKET.fullmatch(value) else f"is not a bucket name that S3 takes: {value!r}"


def _prefix(value: str) -> str:
    return "" if value.endswith("/") else f"must end in '/', or events land beside it: {value!r}"


def _email(value: str) -> str:
    return "" if _EMAIL.fullmatch(value) else f"is not an e-mail address: {value!r}"


def _at_least_8(value: str) -> str:
    return "" if len(value) >= 8 else "is shorter than 8 characters"


def _path_style(value: str) -> str:
    if value == "true":
        return ""
    return "must be true: the bucket is no host name at an S3 endpoint of one's own"


_CLICKHOUSE_CLUSTER = "must be false (it is true by default): there is one ClickHouse node, not a cluster"


def _no_cluster(value: str) -> str:
    return "" if value == "false" else _CLICKHOUSE_CLUSTER


def _s3(family: str) -> dict[str, Check]:
    return {
        f"LANGFUSE_S3_{family}_{name}": check
        for name, check in {
            "BUCKET": _bucket,
            "ENDPOINT": _url("http", "https"),
            "ACCESS_KEY_ID": _any,
            "SECRET_ACCESS_KEY": _any,
            "FORCE_PATH_STYLE": _path_style,
        }.items()
    }


_BOTH: dict[str, Check] = {
    "DATABASE_URL": _url("postgresql", "postgres"),
    "CLICKHOUSE_URL": _url("http", "https"),
    "CLICKHOUSE_USER": _any,
    "CLICKHOUSE_PASSWORD": _clickhouse_password,
    "CLICKHOUSE_CLUSTER_ENABLED": _no_cluster,
    "REDIS_HOST": _any,
    "ENCRYPTION_KEY": _hex_key,
    **_s3("EVENT_UPLOAD"),
}
REQUIRED: dict[str, dict[str, Check]] = {
    "web": {
        **_BOTH,
        "NEXTAUTH_URL": _url("http", "https"),
        "NEXTAUTH_SECRET": _any,
        "SALT": _any,
        "CLICKHOUSE_MIGRATION_URL": _url("clickhouse"),
    },
    "worker": _BOTH,
}
_OPTIONAL: dict[str, Check] = {
    "REDIS_PORT": _port,
    "PORT": _port,
    "LANGFUSE_S3_EVENT_UPLOAD_PREFIX": _prefix,
    "LANGFUSE_S3_MEDIA_UPLOAD_PREFIX": _prefix,
    "LANGFUSE_S3_BATCH_EXPORT_PREFIX": _prefix,
    "AUTH_DISABLE_SIGNUP": _one_of("true", "false"),
    "TELEMETRY_ENABLED": _one_of("true", "false"),
    "LANGFUSE_INIT_USER_EMAIL": _email,
    "LANGFUSE_INIT_USER_PASSWORD": _at_least_8,
}
_INIT_NEEDS = {
    "ORG_NAME": "ORG_ID",
    "PROJECT_ID": "ORG_ID",
    "PROJECT_NAME": "PROJECT_ID",
    "PROJECT_PUBLIC_KEY": "PROJECT_SECRET_KEY",
    "PROJECT_SECRET_KEY": "PROJECT_PUBLIC_KEY",
    "USER_EMAIL": "USER_PASSWORD",
    "USER_PASSWORD": "USER_EMAIL",
}
_DEFAULT_PORT = {"web": 3000, "worker": 3030}


def load(role: str, environment: Mapping[str, str] | None = None) -> Settings:
    """The settings of `web` or `worker`; BadEnvironment names every variable that is missing or wrong."""
    source = os.environ if environment is None else environment
    given = {name: value for name, value in source.items() if value != ""}  # as Langfuse: empty is unset
    required = dict(REQUIRED[role])
    if "LANGFUSE_S3_MEDIA_UPLOAD_BUCKET" in given:
        required |= _s3("MEDIA_UPLOAD")
    problems = [f"{name} {_missing(name)}" for name in required if name not in given]
    for name, check in {**required, **_OPTIONAL}.items():
        if name in given and (wrong := check(given[name])):
            problems.append(f"{name} {wrong}")
    init = {
        name.removeprefix("LANGFUSE_INIT_"): value
        for name, value in given.items()
        if name.startswith("LANGFUSE_INIT_")
    }
    for name, needed in _INIT_NEEDS.items():
        if name in init and needed not in init:
            problems.append(f"LANGFUSE_INIT_{needed} is missing: LANGFUSE_INIT_{name} needs it")
    if problems:
        raise BadEnvironment("\n".join(problems))
    return Settings(
        database_url=given["DATABASE_URL"],
        clickhouse_url=given["CLICKHOUSE_URL"],
        clickhouse_migration_url=given.get("CLICKHOUSE_MIGRATION_URL", ""),
        clickhouse_user=given["CLICKHOUSE_USER"],
        clickhouse_password=given["CLICKHOUSE_PASSWORD"],
        clickhouse_database=given.get("CLICKHOUSE_DB", "default"),
        redis_host=given["REDIS_HOST"],
        redis_port=int(given.get("REDIS_PORT", "6379")),
        redis_auth=given.get("REDIS_AUTH"),
        events=_bucket_of("EVENT_UPLOAD", given),
        media=_bucket_of("MEDIA_UPLOAD", given) if "LANGFUSE_S3_MEDIA_UPLOAD_BUCKET" in given else None,
        salt=given.get("SALT", ""),
        public_url=given.get("NEXTAUTH_URL", "").rstrip("/"),
        signup_disabled=given.get("AUTH_DISABLE_SIGNUP") == "true",
        init=init,
        host=given.get("HOSTNAME", "0.0.0.0"),
        port=int(given.get("PORT", _DEFAULT_PORT[role])),
    )


def _missing(name: str) -> str:
    return _CLICKHOUSE_CLUSTER if name == "CLICKHOUSE_CLUSTER_ENABLED" else "is required and missing or empty"


def _bucket_of(family: str, given: Mapping[str, str]) -> Bucket:
    def value(name: str, default: str = "") -> str:
        return given.get(f"LANGFUSE_S3_{family}_{name}", default)

    return Bucket(
        name=value("BUCKET"),
        prefix=value("PREFIX"),
        region=value("REGION", "us-east-1"),
        endpoint=value("ENDPOINT"),
        access_key_id=value("ACCESS_KEY_ID"),
        secret_access_key=value("SECRET_ACCESS_KEY"),
    )
