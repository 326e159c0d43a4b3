"""A backup's settings, secrets and data, put into a stack on this or another machine."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from scripts.bootstrap import engine, leftovers, power
from scripts.bootstrap.backup import CLICKHOUSE, DATABASES, FOLDERS, RELEASES, SETTINGS, Backup
from scripts.bootstrap.leftovers import Found
from scripts.bootstrap.stack import Stack, resources_of, with_resources
from scripts.machine.problems import Problem
from scripts.machine.processes import Say

REPLACE, KEEP_DATA = "--replace", "--keep-data"

# Into another database first: where the dump does not go in, what is there stays.
_READ = """\
export PGUSER="$POSTGRES_USER"
new="$POSTGRES_DB-restoring"
dropdb --if-exists --force "$new"
createdb "$new"
pg_restore --exit-on-error --dbname="$new"
"""
_SWAP = """\
export PGUSER="$POSTGRES_USER"
new="$POSTGRES_DB-restoring"
dropdb --if-exists --force "$POSTGRES_DB"
psql --quiet --dbname=postgres --command="ALTER DATABASE \\"$new\\" RENAME TO \\"$POSTGRES_DB\\""
"""
_ACCOUNTS = "mlflow-postgres-auth"
# The stack's administrator keeps the password that the stack has, or it could not put right anything else. Prints whom else the
# backup brings. The hash goes by the environment: arguments are for everybody to see.
_KEEP_ADMIN = """\
export PGUSER="$POSTGRES_USER" ADMIN="$0"
psql() { command psql --no-psqlrc --quiet --tuples-only --no-align --set=ON_ERROR_STOP=1 "$@"; }
names='SELECT username FROM users ORDER BY username'
before=$(psql --dbname="$POSTGRES_DB" --command="$names")
HASH=$(psql --dbname="$POSTGRES_DB" <<'SQL'
\\getenv admin ADMIN
SELECT password_hash FROM users WHERE username = :'admin';
SQL
)
[ -n "$HASH" ] || { echo "there is no administrator $ADMIN" >&2; exit 1; }
export HASH
psql --dbname="$POSTGRES_DB-restoring" <<'SQL'
\\getenv admin ADMIN
\\getenv hash HASH
INSERT INTO users (username, password_hash, is_admin) VALUES (:'admin', :'hash', true)
ON CONFLICT (username) DO UPDATE SET password_hash = EXCLUDED.password_hash, is_admin = true;
SQL
psql --dbname="$POSTGRES_DB-restoring" --command="$names" | while IFS= read -r name; do
    case "
$before
" in *"
$name
"*) ;; *) printf '%s\\n' "$name" ;; esac
done
"""
# The queue of what Langfuse has yet to take in, which belongs to the data that goes.
_QUEUE, _QUEUE_FOLDER = "langfuse-redis", "/data"
_EMPTY = 'cd "$0" && rm -rf ..?* .[!.]* *'
_SECRETS = ("random:", "pulumi:providers:random")
_VOLUMES = ("docker:index/volume:", "pulumi:providers:docker")


def take_settings(chosen: Backup, stack: Stack, say: Say) -> None:
    """The backup's settings, where the checkout has none for the stack."""
    file = stack.config_file
    settings = (chosen.folder / SETTINGS).read_text(encoding="utf-8")
    if (text := stack.settings) and text != settings and ":" in _entries(text):
        say(f"Settings: those of {file.name}; the backup's are in {chosen.folder / SETTINGS}")
        return
    stack.write_settings(settings)


def _entries(settings: str) -> str:
    """What a file of settings says beyond comments, and that there are none."""
    lines = (line.partition("#")[0].strip() for line in settings.splitlines())
    return "\n".join(line for line in lines if line not in ("", "config:", "config: {}"))


def take_secrets(chosen: Backup, stack: Stack, *, replace: bool, keep_data: bool) -> None:
    """Give the stack the backup's secrets, which unlock its data, unless it has them. Refuse what would cost other data."""
    exported = stack.exported()
    theirs = leftovers.identity_of(resources_of(chosen.state))
    ours = leftovers.identity_of(resources_of(exported))
    if ours and ours != theirs:
        raise Problem(
            f"the stack {stack.name} has secrets of its own, so that it is another one than that of {chosen.folder}",
            f"to put the backup in its place, remove it WITH ITS DATA: {stack.make('destroy', '--delete-data')}",
        )
    known = leftovers.known_volumes(exported if ours else chosen.state)
    leftovers.refuse_foreign(stack, theirs, leftovers.containers(stack), known)
    there = sorted({*leftovers.volumes(stack), *(known & leftovers.all_volumes())})
    if not keep_data and not replace and there:
        raise Problem(
            f"the engine has data of the stack {stack.name}, which the backup would replace: {', '.join(there)}",
            f"to replace it: {again(chosen, stack)}. To go on with it, and take no more than the "
            f"lost state's secrets out of the backup: {stack.make('restore', str(chosen.folder), KEEP_DATA)}",
        )
    if not ours:
        stack.import_(_only(chosen.state, (*_SECRETS, *_VOLUMES) if keep_data else _SECRETS))


def again(chosen: Backup, stack: Stack) -> str:
    """The command that replaces data by a backup."""
    return stack.make("restore", str(chosen.folder), REPLACE)


def _only(exported: Mapping[str, Any], types: tuple[str, ...]) -> dict[str, Any]:
    """A state that has resources of these types alone, and what they are part of."""
    resources = resources_of(exported)
    parents = {item["urn"]: item.get("parent") for item in resources}
    kept: set[str] = set()
    for item in resources:
        urn = item["urn"] if item["type"].startswith(types) else None
        while urn and urn not in kept:
            kept.add(urn)
            urn = parents[urn]
    alone = with_resources(exported, [item for item in resources if item["urn"] in kept])
    alone["deployment"]["pending_operations"] = []
    return alone


def put_back(chosen: Backup, stack: Stack, say: Say) -> None:
    """Replace the data of a stack that runs by the backup's. Servers are stopped meanwhile; repeated, it starts anew."""
    found = {item.service: item for item in leftovers.containers(stack)}
    _refuse_unreadable(chosen, stack, found)
    administrator = str(stack.outputs()["mlflowAdminUsername"]) if chosen.file(_ACCOUNTS) else ""
    fix = f"{again(chosen, stack)} begins anew; until then its servers are stopped"
    try:
        power.stop_servers(stack, say)
        _put_back(chosen, found, administrator, stack, say)
        power.start(stack, say)
    except KeyboardInterrupt:
        raise Problem("interrupted while data was replaced", fix) from None
    except Problem as problem:
        raise Problem(problem.message, f"put right what it says; {fix}") from None


def _put_back(chosen: Backup, found: Mapping[str, Found], administrator: str, stack: Stack, say: Say) -> None:
    for service in DATABASES:
        if (file := chosen.file(service)) is not None:
            say(f"Restoring {found[service].name}")
            _feed(["exec", "--interactive", found[service].id, "sh", "-euc", _READ], file)
            if service == _ACCOUNTS:
                _keep_admin(found[service], administrator, stack, say)
            engine.docker("exec", found[service].id, "sh", "-euc", _SWAP)
    for service, path in FOLDERS.items():
        if (file := chosen.file(service)) is not None:
            say(f"Restoring {found[service].name}")
            power.stop_these([found[service]], say)
            _empty(found[service], path)
            try:
                _feed(["cp", "-", f"{found[service].id}:{Path(path).parent}"], file)
            except BaseException:
                _empty(found[service], path)  # half of its files might keep it from starting
                raise
    if _QUEUE in found and chosen.file(CLICKHOUSE) is not None:
        power.stop_these([found[_QUEUE]], say)
        _empty(found[_QUEUE], _QUEUE_FOLDER)


def _keep_admin(accounts: Found, administrator: str, stack: Stack, say: Say) -> None:
    if names := engine.docker("exec", accounts.id, "sh", "-euc", _KEEP_ADMIN, administrator).splitlines():
        say(
            f"MLflow's accounts that come back with the backup, and that the settings do not declare: {', '.join(names)}\n"
            f"where one is no longer wanted: {stack.make('users', 'delete-user', '--username', 'NAME')}"
        )


def _refuse_unreadable(chosen: Backup, stack: Stack, found: Mapping[str, Found]) -> None:
    stores = {Path(name).stem for name in chosen.files if name.endswith((".dump", ".tar"))}
    if missing := sorted(stores - set(found)):
        raise Problem(
            f"the backup has data of {', '.join(missing)}, which the stack does not have",
            f"declare them, as {chosen.folder / SETTINGS} does, and {stack.make('up')}",
        )
    for service in RELEASES.keys() & found.keys() & chosen.versions.keys():
        wrote, reads = chosen.versions[service], found[service].version
        before, after = (_release(version, RELEASES[service]) for version in (wrote, reads))
        if before and after and after < before:
            raise Problem(
                f"{service} {reads} cannot read what {wrote} wrote",
                f"set its version, as {chosen.folder / SETTINGS} does, and {stack.make('up')}",
            )


def _release(version: str, count: int) -> tuple[int, ...]:
    """The first numbers of a version, which may be an image's reference; empty where it tells none, as a digest."""
    tag = version.partition("@")[0].rpartition(":")[2]
    found = re.match(r"\d+(?:\.\d+)*(?![\da-f])", tag)
    return tuple(int(part) for part in found[0].split(".")[:count]) if found else ()


def _empty(item: Found, path: str) -> None:
    """Remove everything in the volume of a store that is stopped, by its own image's shell."""
    # By its name, a second one is refused while the first one, whose client was interrupted, still works.
    with_volumes = ("--name", f"{item.name}-emptying", "--user", "0", "--volumes-from", item.id)
    shell = ("--entrypoint", "/bin/sh", item.image, "-c", _EMPTY, path)
    engine.docker("run", "--rm", "--network", "none", *with_volumes, *shell)


def _feed(command: list[str], file: Path) -> None:
    with file.open("rb") as stream:
        engine.docker(*command, source=stream.fileno())
