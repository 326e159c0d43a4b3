"""A Postgres with one database and one user."""

from __future__ import annotations

from dataclasses import dataclass

import pulumi
import pulumi_docker as docker
from pulumi import Input, Output, ResourceOptions

from components.service import BECOME_USER, SECRETS, Attachment, Health, Service, ServiceArgs
from components.site import TYPE, Site

_DATA = "/var/lib/postgresql/data"

# The image takes its password when it makes the database and never again. A data directory that exists is given the
# declared one before the server listens, so another password in the settings takes effect by the restart it causes. The
# statement goes in by standard input and is kept out of the log.
_START = """\
if [ -s "$PGDATA/PG_VERSION" ]; then
    chown -R postgres "$PGDATA"
    rm -f "$PGDATA/postmaster.pid"
    printf "ALTER ROLE \\"%s\\" PASSWORD '%s';\\n" "$POSTGRES_USER" "$(cat "$POSTGRES_PASSWORD_FILE")" |
        gosu postgres postgres --single -D "$PGDATA" -c log_min_error_statement=panic -c log_statement=none postgres >/dev/null
fi
exec docker-entrypoint.sh "$@"
"""


@dataclass(frozen=True, kw_only=True)
class PostgresArgs:
    """`database` is also the user's name. `connections`: how many at most at a time. `published`: port, if any."""

    database: str
    password: Input[str]
    volume: docker.Volume
    network: docker.Network
    connections: int = 100
    published: int | None = None


class Postgres(pulumi.ComponentResource):
    """A Postgres on the given volume, found in its network by its name."""

    def __init__(
        self, name: str, site: Site, args: PostgresArgs, opts: ResourceOptions | None = None
    ) -> None:
        super().__init__(f"{TYPE}:Postgres", name, {}, opts)
        self._name = name
        self._args = args
        self.service = Service(
            name,
            site,
            ServiceArgs(
                image="postgres",
                networks=[
                    Attachment(network=args.network, aliases=[name]),
                    *([Attachment(network=site.edge)] if args.published else []),
                ],
                memory=site.postgres_memory,
                entrypoint=["bash", "-euo", "pipefail", "-c", _START, name],
                command=["postgres", "-c", f"max_connections={args.connections}"],
                environment={
                    "POSTGRES_USER": args.database,
                    "POSTGRES_DB": args.database,
                    "POSTGRES_PASSWORD_FILE": f"{SECRETS}/postgres-password",
                    "PGDATA": f"{_DATA}/pgdata",
                },
                secrets={"postgres-password": args.password},
                volumes={_DATA: args.volume},
                ports={5432: args.published} if args.published else {},
                capabilities=BECOME_USER,
                # Parallel queries share what Docker's own 64 MiB may not hold; it counts as the container's memory.
                shared_memory=256,
                # By TCP: while it initialises, a server that only its socket reaches answers already.
                health=Health(
                    command=[
                        *("psql", "-qAtX", "-h", "127.0.0.1", "-U", args.database),
                        *("-d", args.database, "-c", "SELECT 1"),
                    ]
                ),
            ),
            ResourceOptions(parent=self),
        )
        self.register_outputs({})

    def url(self, scheme: str) -> Output[str]:
        """Where clients in the network find the database, password included."""
        database = self._args.database
        return Output.secret(
            Output.concat(
                scheme, "://", database, ":", self._args.password, "@", self._name, ":5432/", database
            )
        )
