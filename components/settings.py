"""Every setting of the stack: its name, default, meaning and check. Nothing here touches the machine.

A field `port` of `MlflowSettings` is the configuration key `mlflowPort`; those of `GeneralSettings` have no prefix. Pulumi.yaml's
`config:` block and the README's table are made from these fields (`python -m scripts.settings_table`).
"""

from __future__ import annotations

import difflib
import json
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import MISSING, Field, dataclass, field, fields
from typing import Any

from components import checks
from components.checks import Check
from components.problems import Problem, ProblemsError, Refused

PROJECT = "mlops-stack"
IMAGE_NAMES = (
    "mlflow",
    "python",
    "postgres",
    "minio",
    "mc",
    "redis",
    "clickhouse",
    "langfuse-web",
    "langfuse-worker",
)


def _setting(default: Any, meaning: str, check: Check | None = None, *, secret: bool = False) -> Any:
    metadata = {"meaning": meaning, "check": check, "secret": secret}
    if isinstance(default, (list, dict)):
        return field(default_factory=lambda: type(default)(default), metadata=metadata)
    return field(default=default, metadata=metadata, repr=not secret)


def _secret(meaning: str, check: Check) -> Any:
    return _setting("", f"{meaning}. Generated when empty", check, secret=True)


def _managed_secret(meaning: str, check: Check) -> Any:
    return _setting("", meaning, check, secret=True)


@dataclass(frozen=True, kw_only=True)
class TeamMember:
    """One entry of `mlflowUsers`: an account and what it may do. Experiments are named, or given as `id:7`."""

    name: str
    admin: bool = False
    password: str = field(default="", repr=False)
    adopt: bool = False
    experiments: Mapping[str, str] = field(default_factory=dict)
    models: Mapping[str, str] = field(default_factory=dict)


def team_members(value: list[Any]) -> tuple[TeamMember, ...]:
    """The entries of `mlflowUsers`, checked."""
    return tuple(_member(position, entry) for position, entry in enumerate(value))


def _member(position: int, entry: Any) -> TeamMember:
    known = {item.name: item for item in fields(TeamMember)}
    where = f"entry {position}"
    if not isinstance(entry, dict) or not isinstance(entry.get("name"), str):
        raise Refused(f"{where} is not a mapping with a name", "write name: alice and what belongs to it")
    where = f"{where} ({entry['name']})"
    for key, value in entry.items():
        if key not in known:
            raise Refused(f"{where} has the unknown key {key!r}", f"use {', '.join(known)}")
        if key in ("admin", "adopt") and not isinstance(value, bool):
            raise Refused(f"{where}: {key} is not true or false", f"write {key}: true or leave it out")
        if key in ("experiments", "models"):
            _grants(f"{where}: {key}", value)
    try:
        checks.mlflow_user_name(entry["name"])
        if entry.get("password"):
            checks.mlflow_password(entry["password"])
    except Refused as refused:
        raise Refused(f"{where}: {refused.problem}", refused.fix) from None
    return TeamMember(**{**entry, "password": entry.get("password") or ""})


def _grants(where: str, value: Any) -> None:
    if not isinstance(value, dict):
        raise Refused(f"{where} is not a mapping", "write NAME: PERMISSION for each")
    for name, permission in value.items():
        if not name or len(name) > 250 or not name.isprintable():
            raise Refused(
                f"{where}: {name!r} is not a name of 1 to 250 printable characters", "correct the name"
            )
        if permission not in checks.PERMISSIONS:
            allowed = ", ".join(checks.PERMISSIONS)
            raise Refused(
                f"{where}: {name}: {permission!r} is no permission of MLflow", f"use one of {allowed}"
            )


@dataclass(frozen=True, kw_only=True)
class GeneralSettings:
    """What concerns the stack as a whole."""

    name_prefix: str = _setting(
        "",
        "What the names of containers, networks and volumes begin with, so that several stacks share an engine: team-a-",
        checks.name_prefix,
    )
    bind_address: str = _setting(
        "127.0.0.1",
        "Address of this machine on which ports are published; 0.0.0.0 for every interface, then with the public URLs set",
        checks.ip_address,
    )
    registry_mirror: str = _setting(
        "", "Registry that mirrors all images: host[:port][/path]", checks.registry
    )
    images: Mapping[str, str] = _setting(
        {},
        f"Images to use in place of the table's, by name ({', '.join(IMAGE_NAMES)})",
        checks.images(IMAGE_NAMES),
    )
    data_retention: str = _setting(
        "keep",
        "keep: volumes and the secrets that unlock them survive destroy and switching a product off; delete: they go",
        checks.one_of("keep", "delete"),
    )
    publish_data_stores: bool = _setting(
        False, "Publish Postgres and MinIO on the bind address too, for debugging"
    )
    postgres_memory: int = _setting("512m", "Memory limit of each Postgres", checks.memory)
    minio_memory: int = _setting("1g", "Memory limit of each MinIO", checks.memory)


@dataclass(frozen=True, kw_only=True)
class MlflowSettings:
    """MLflow and its stores."""

    enabled: bool = _setting(True, "Deploy MLflow")
    version: str = _setting(
        "3.4.0",
        "MLflow's release; 3.17.2 has fixes for the known vulnerabilities of 3.4.0",
        checks.one_of(*checks.MLFLOW_VERSIONS),
    )
    port: int = _setting(5000, "Published port", checks.port)
    public_url: str = _setting(
        "", "Address people open, where a proxy serves MLflow: https://mlflow.example.com", checks.public_url
    )
    bootstrap_url: str = _setting(
        "",
        "Address at which the machine that runs Pulumi reaches MLflow, where that is not the bind address (a remote engine)",
        checks.public_url,
    )
    allowed_hosts: tuple[str, ...] = _setting(
        [], "Host names that MLflow answers to, beside loopback and the public URL's", checks.host_list
    )
    admin_username: str = _setting("admin", "Administrator's name", checks.mlflow_user_name)
    admin_password: str = _secret("Administrator's password, 12 characters or more", checks.mlflow_password)
    default_permission: str = _setting(
        "READ",
        "What users may do where nothing was granted: READ, EDIT, MANAGE or NO_PERMISSIONS",
        checks.one_of(*checks.PERMISSIONS),
    )
    users: tuple[TeamMember, ...] = _setting(
        [],
        "The team: name, admin, password, adopt, experiments, models of each (docs/users.md)",
        team_members,
    )
    create_experiments: bool = _setting(
        True, "Create experiments that a team member is given a permission on"
    )
    bucket: str = _setting("mlflow", "Bucket of the artifacts", checks.bucket)
    workers: int = _setting(2, "Server processes", checks.between(1, 64))
    threads: int = _setting(8, "Threads of each server process (3.4.0)", checks.between(1, 128))
    database_pool_size: int = _setting(
        5, "Connections that each server process keeps to each database", checks.between(1, 100)
    )
    auth_cache_seconds: int = _setting(
        30,
        "How long verified credentials are remembered; 0 checks every request's password anew",
        checks.between(0, 3600),
    )
    memory: int = _setting("2g", "Memory limit of the server", checks.memory)
    postgres_port: int = _setting(5432, "Port of the tracking database, where published", checks.port)
    auth_postgres_port: int = _setting(5433, "Port of the users' database, where published", checks.port)
    minio_port: int = _setting(9000, "Port of the artifact store's S3 API, where published", checks.port)
    minio_console_port: int = _setting(
        9001, "Port of the artifact store's console, where published", checks.port
    )
    postgres_password: str = _secret("Password of the tracking database", checks.store_password)
    auth_postgres_password: str = _secret("Password of the users' database", checks.store_password)
    minio_root_user: str = _secret("Root user of the artifact store", checks.store_user)
    minio_root_password: str = _secret("Root password of the artifact store", checks.store_password)
    flask_secret_key: str = _secret("Key that signs MLflow's sessions and forms", checks.secret_text(32))
    database_url: str = _managed_secret(
        "Managed Postgres for tracking: postgresql+psycopg2://USER:PASSWORD@HOST:5432/DATABASE. Empty: a container",
        checks.database_url("postgresql+psycopg2"),
    )
    auth_database_url: str = _managed_secret(
        "Managed Postgres for users, another database than the one for tracking. Empty: a container",
        checks.database_url("postgresql+psycopg2"),
    )
    s3_endpoint: str = _setting(
        "", "Managed S3: https://HOST. Empty: a MinIO container", checks.service_url("https", "http")
    )
    s3_region: str = _setting("", "Region of the managed S3, as it signs requests", checks.region)
    s3_access_key_id: str = _managed_secret("Access key of the managed S3", checks.secret_text(3))
    s3_secret_access_key: str = _managed_secret("Secret key of the managed S3", checks.secret_text(8))

    @property
    def stores(self) -> Mapping[str, str]:
        """Store -> where somebody else runs it; empty where it is a container of the stack."""
        return {
            "mlflow-postgres": self.database_url,
            "mlflow-postgres-auth": self.auth_database_url,
            "mlflow-minio": self.s3_endpoint,
        }


@dataclass(frozen=True, kw_only=True)
class LangfuseSettings:
    """Langfuse and its stores."""

    enabled: bool = _setting(True, "Deploy Langfuse")
    version: str = _setting("3.225.4", "Langfuse's release, 3.x.y", checks.langfuse_version)
    port: int = _setting(3000, "Published port", checks.port)
    public_url: str = _setting("", "Address people open, where a proxy serves Langfuse", checks.public_url)
    media_url: str = _setting(
        "",
        "Address at which browsers reach Langfuse's S3, for media and exports, where a proxy serves it; with https, as browsers show media from nowhere else but localhost",
        checks.public_url,
    )
    minio_port: int = _setting(
        9090,
        "Published port of Langfuse's S3: clients upload and browsers read media and exports there",
        checks.port,
    )
    minio_console_port: int = _setting(9091, "Port of its console, where published", checks.port)
    postgres_port: int = _setting(5434, "Port of Langfuse's Postgres, where published", checks.port)
    organization_id: str = _setting("mlops", "First organisation's id", checks.identifier)
    organization_name: str = _setting("MLOps", "First organisation's name", checks.display_name)
    project_id: str = _setting("default", "First project's id", checks.identifier)
    project_name: str = _setting("Default", "First project's name", checks.display_name)
    user_email: str = _setting(
        "admin@example.com", "First user's e-mail address, to log in with", checks.email
    )
    user_name: str = _setting("Admin", "First user's name", checks.display_name)
    user_password: str = _secret(
        "First user's password, 8 characters or more; acts when the user is created",
        checks.langfuse_user_password,
    )
    public_key: str = _secret(
        "First project's public API key, pk-lf-...; change it together with the secret key",
        checks.api_key("pk"),
    )
    secret_key: str = _secret("First project's secret API key, sk-lf-...", checks.api_key("sk"))
    allow_signup: bool = _setting(False, "Let anybody who reaches the log-in page create an account")
    telemetry: bool = _setting(False, "Send usage statistics to Langfuse")
    events_bucket: str = _setting("langfuse-events", "Bucket of raw events", checks.bucket)
    media_bucket: str = _setting("langfuse-media", "Bucket of media", checks.bucket)
    exports_bucket: str = _setting("langfuse-exports", "Bucket of batch exports", checks.bucket)
    events_prefix: str = _setting("events/", "Prefix of raw events, ending in /", checks.object_prefix)
    media_prefix: str = _setting("media/", "Prefix of media, ending in /", checks.object_prefix)
    exports_prefix: str = _setting("exports/", "Prefix of exports, ending in /", checks.object_prefix)
    web_memory: int = _setting("2g", "Memory limit of the web server", checks.memory)
    worker_memory: int = _setting("2g", "Memory limit of the worker", checks.memory)
    clickhouse_memory: int = _setting("4g", "Memory limit of ClickHouse", checks.memory)
    redis_memory: int = _setting("1g", "Memory limit of Redis", checks.memory)
    nextauth_secret: str = _secret("NEXTAUTH_SECRET, which signs sessions", checks.secret_text(32))
    salt: str = _secret(
        "SALT, with which API keys are hashed: base64 of 32 bytes. Another one makes every API key useless",
        checks.salt,
    )
    encryption_key: str = _secret(
        "ENCRYPTION_KEY, 64 hexadecimal digits. Another one makes stored LLM credentials unreadable",
        checks.encryption_key,
    )
    postgres_password: str = _secret("Password of Langfuse's Postgres", checks.store_password)
    clickhouse_password: str = _secret("Password of ClickHouse", checks.store_password)
    redis_password: str = _secret("Password of Redis", checks.store_password)
    minio_root_user: str = _secret("Root user of Langfuse's S3", checks.store_user)
    minio_root_password: str = _secret("Root password of Langfuse's S3", checks.store_password)
    database_url: str = _managed_secret(
        "Managed Postgres: postgresql://USER:PASSWORD@HOST:5432/DATABASE. Empty: a container",
        checks.database_url("postgresql"),
    )
    clickhouse_url: str = _setting(
        "",
        "Managed ClickHouse over HTTP: https://HOST:8443. Empty: a container",
        checks.service_url("https", "http"),
    )
    clickhouse_migration_url: str = _setting(
        "", "The managed ClickHouse's native port: clickhouse://HOST:9440", checks.service_url("clickhouse")
    )
    clickhouse_user: str = _setting("langfuse", "User of ClickHouse", checks.sql_user)
    redis_url: str = _managed_secret(
        "Managed Redis: rediss://:PASSWORD@HOST:6379. Empty: a container", checks.redis_url
    )
    s3_endpoint: str = _setting(
        "", "Managed S3: https://HOST. Empty: a MinIO container", checks.service_url("https", "http")
    )
    s3_region: str = _setting(
        "auto", "Region of the S3; a managed one's as it signs requests", checks.identifier
    )
    s3_access_key_id: str = _managed_secret("Access key of the managed S3", checks.secret_text(3))
    s3_secret_access_key: str = _managed_secret("Secret key of the managed S3", checks.secret_text(8))

    @property
    def stores(self) -> Mapping[str, str]:
        """Store -> where somebody else runs it; empty where it is a container of the stack."""
        return {
            "langfuse-postgres": self.database_url,
            "langfuse-clickhouse": self.clickhouse_url,
            "langfuse-redis": self.redis_url,
            "langfuse-minio": self.s3_endpoint,
        }


@dataclass(frozen=True, kw_only=True)
class Settings:
    """All settings, checked."""

    general: GeneralSettings = field(default_factory=GeneralSettings)
    mlflow: MlflowSettings = field(default_factory=MlflowSettings)
    langfuse: LangfuseSettings = field(default_factory=LangfuseSettings)


SECTIONS: Mapping[str, type] = {
    "general": GeneralSettings,
    "mlflow": MlflowSettings,
    "langfuse": LangfuseSettings,
}


def key_of(section: str, name: str) -> str:
    """The configuration key of a field: ("mlflow", "public_url") is mlflowPublicUrl."""
    words = name.split("_") if section == "general" else [section, *name.split("_")]
    return words[0] + "".join(word.capitalize() for word in words[1:])


def default_of(item: Field[Any]) -> Any:
    """A field's default, as it stands in Pulumi.yaml."""
    if item.default is not MISSING:
        return item.default
    assert item.default_factory is not MISSING
    return item.default_factory()


def each() -> Iterator[tuple[str, str, Field[Any]]]:
    """(key, section, field) of every setting, in the order of this file."""
    for section, kind in SECTIONS.items():
        for item in fields(kind):
            yield key_of(section, item.name), section, item


def load(raw: Mapping[str, str], secret_keys: Collection[str] = ()) -> Settings:
    """The settings out of Pulumi's configuration (`mlops-stack:KEY` -> text, JSON for lists and mappings).

    Raises ProblemsError with everything that is wrong with them.
    """
    given = {
        key.removeprefix(f"{PROJECT}:"): value for key, value in raw.items() if key.startswith(f"{PROJECT}:")
    }
    kept_secret = {key.removeprefix(f"{PROJECT}:") for key in secret_keys}
    problems: list[Problem] = []
    values: dict[str, dict[str, Any]] = {section: {} for section in SECTIONS}
    known = set()
    for key, section, item in each():
        known.add(key)
        try:
            value = _parse(given[key], default_of(item)) if key in given else default_of(item)
            values[section][item.name] = _checked(value, item)
            if key in given and key not in kept_secret and _is_secret(item, value):
                raise Refused(
                    "the value is stored in plain text", f"pulumi config set --secret {key}, and type it in"
                )
        except Refused as refused:
            problems.append(Problem(f"{PROJECT}:{key}", refused.problem, refused.fix))
    problems += [_unknown(key, known) for key in sorted(set(given) - known)]
    if not problems:
        settings = Settings(**{section: kind(**values[section]) for section, kind in SECTIONS.items()})
        problems += _together(settings)
    if problems:
        raise ProblemsError("The configuration cannot be used; nothing has been changed:", problems)
    return settings


def _parse(text: Any, default: Any) -> Any:
    if isinstance(default, str):
        return str(text)
    wanted = {bool: "true or false", int: "a whole number", list: "a list", dict: "a mapping"}[type(default)]
    try:
        value = json.loads(text) if isinstance(text, str) else text
    except ValueError:
        value = None
    if type(value) is not type(default):
        raise Refused(f"the value is not {wanted}", f"give {wanted}")
    return value


def _checked(value: Any, item: Field[Any]) -> Any:
    check: Callable[[Any], Any] | None = item.metadata["check"]
    generated = item.metadata["secret"] and value == ""
    return value if check is None or generated else check(value)


def _is_secret(item: Field[Any], value: Any) -> bool:
    if item.name == "users":
        return any(isinstance(entry, dict) and entry.get("password") for entry in value)
    return bool(item.metadata["secret"] and value)


def _unknown(key: str, known: Collection[str]) -> Problem:
    near = difflib.get_close_matches(key, known, 1)
    fix = f"did you mean {near[0]}? " if near else ""
    return Problem(
        f"{PROJECT}:{key}", "no setting has this name", f"{fix}pulumi config rm {key}; the README lists all"
    )


def _together(settings: Settings) -> list[Problem]:
    """What only several settings together show."""
    return [
        *_nothing_enabled(settings),
        *_equal_ports(settings),
        *_equal_databases(settings.mlflow),
        *_managed(settings),
        *_equal_buckets(settings.langfuse),
        *_equal_users(settings.mlflow),
    ]


def _problem(section: str, name: str, problem: str, fix: str) -> Problem:
    return Problem(f"{PROJECT}:{key_of(section, name)}", problem, fix)


def _nothing_enabled(settings: Settings) -> Iterator[Problem]:
    if not (settings.mlflow.enabled or settings.langfuse.enabled):
        yield _problem("mlflow", "enabled", "both products are switched off", "set one to true")


def published_ports(settings: Settings) -> dict[str, int]:
    """Setting -> port, of everything that this stack publishes."""
    mlflow, langfuse, stores = settings.mlflow, settings.langfuse, settings.general.publish_data_stores
    ports: dict[str, int] = {}

    def add(section: str, *names: str) -> None:
        ports.update({key_of(section, name): getattr(getattr(settings, section), name) for name in names})

    if mlflow.enabled:
        add("mlflow", "port")
        if stores and not mlflow.database_url:
            add("mlflow", "postgres_port")
        if stores and not mlflow.auth_database_url:
            add("mlflow", "auth_postgres_port")
        if stores and not mlflow.s3_endpoint:
            add("mlflow", "minio_port", "minio_console_port")
    if langfuse.enabled:
        add("langfuse", "port")
        if stores and not langfuse.database_url:
            add("langfuse", "postgres_port")
        if not langfuse.s3_endpoint:
            add("langfuse", "minio_port", *(["minio_console_port"] if stores else []))
    return ports


def advice(settings: Settings) -> Iterator[str]:
    """What can be meant, and more likely was forgotten."""
    general, mlflow, langfuse = settings.general, settings.mlflow, settings.langfuse
    if general.bind_address not in ("0.0.0.0", "::"):
        return
    missing = []
    if mlflow.enabled and not (mlflow.public_url or mlflow.allowed_hosts):
        missing.append(("mlflow", "public_url"))
    if langfuse.enabled and not langfuse.public_url:
        missing.append(("langfuse", "public_url"))
    if langfuse.enabled and not (langfuse.media_url or langfuse.s3_endpoint):
        missing.append(("langfuse", "media_url"))
    if missing:
        yield (
            f"{key_of('general', 'bind_address')}: ports are published on every interface, and yet only localhost is known as the name "
            "under which people come: MLflow refuses other names, and Langfuse sends browsers to localhost. "
            f"Set {', '.join(key_of(*setting) for setting in missing)}"
        )


def _equal_ports(settings: Settings) -> Iterator[Problem]:
    owner: dict[int, str] = {}
    for key, port in published_ports(settings).items():
        first = owner.setdefault(port, key)
        if first != key:
            yield Problem(
                f"{PROJECT}:{key}", f"{port} is the port of {first} too", "give each a port of its own"
            )


def _equal_databases(mlflow: MlflowSettings) -> Iterator[Problem]:
    if (
        mlflow.database_url
        and mlflow.database_url.partition("@")[2] == mlflow.auth_database_url.partition("@")[2]
    ):
        yield _problem(
            "mlflow",
            "auth_database_url",
            "the users' database is the tracking database; their tables clash in MLflow before 3.6",
            "name another database",
        )


def _managed(settings: Settings) -> Iterator[Problem]:
    for section in ("mlflow", "langfuse"):
        product = getattr(settings, section)
        for name in ("s3_access_key_id", "s3_secret_access_key"):
            if product.s3_endpoint and not getattr(product, name):
                yield _problem(section, name, "the managed S3 needs it", "pulumi config set --secret it")
            if getattr(product, name) and not product.s3_endpoint:
                yield _problem(
                    section,
                    name,
                    "it belongs to a managed S3, and none is set",
                    f"set {key_of(section, 's3_endpoint')}",
                )
    langfuse = settings.langfuse
    if langfuse.clickhouse_url and not langfuse.clickhouse_migration_url:
        yield _problem(
            "langfuse",
            "clickhouse_migration_url",
            "the managed ClickHouse needs it",
            "set clickhouse://HOST:9440",
        )
    if langfuse.clickhouse_migration_url and not langfuse.clickhouse_url:
        yield _problem(
            "langfuse", "clickhouse_url", "the managed ClickHouse needs it", "set https://HOST:8443"
        )
    if langfuse.clickhouse_url and not langfuse.clickhouse_password:
        yield _problem(
            "langfuse",
            "clickhouse_password",
            "the managed ClickHouse needs it",
            "pulumi config set --secret it",
        )
    if bool(langfuse.public_key) != bool(langfuse.secret_key):
        missing = "secret_key" if langfuse.public_key else "public_key"
        yield _problem("langfuse", missing, "only one half of the API key is set", "set both halves, or none")


def _equal_buckets(langfuse: LangfuseSettings) -> Iterator[Problem]:
    places = {
        "events_bucket": (langfuse.events_bucket, langfuse.events_prefix),
        "media_bucket": (langfuse.media_bucket, langfuse.media_prefix),
        "exports_bucket": (langfuse.exports_bucket, langfuse.exports_prefix),
    }
    seen: dict[tuple[str, str], str] = {}
    for name, place in places.items():
        first = seen.setdefault(place, name)
        if first != name:
            yield _problem(
                "langfuse",
                name,
                f"bucket and prefix are those of {key_of('langfuse', first)}",
                "use another one",
            )


def _equal_users(mlflow: MlflowSettings) -> Iterator[Problem]:
    seen = {mlflow.admin_username}
    for member in mlflow.users:
        if member.name in seen:
            what = (
                "is the administrator" if member.name == mlflow.admin_username else "stands twice in the list"
            )
            yield _problem("mlflow", "users", f"{member.name!r} {what}", "name every account once")
        seen.add(member.name)
