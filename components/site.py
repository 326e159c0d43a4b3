"""What all services of one stack share: names, labels, the network people reach, retention, images."""

from __future__ import annotations

from collections.abc import Collection, Mapping

import pulumi
import pulumi_docker as docker
import pulumi_random as random

from components.images import Images
from components.secrets import Secrets
from components.settings import PROJECT, Settings

TYPE = f"{PROJECT}:components"


def network_of(name: str) -> str:
    """A network's name on the engine, but for the prefix."""
    return f"{PROJECT}-{name}"


def volume_of(store: str) -> str:
    """The same of a store's volume."""
    return f"{store}-data"


def in_url(host: str) -> str:
    """A host as it stands in URLs and in the Host header: an IPv6 address in brackets."""
    return f"[{host}]" if ":" in host else host


class Site(pulumi.ComponentResource):
    """The common ground of a stack's services.

    `identity` is random and belongs to this state alone. As a label it tells what an interrupted `up` of this stack left behind
    from what another stack of the same name owns. `volumes`: names of those that the stack has on the engine already.
    """

    def __init__(
        self,
        name: str,
        settings: Settings,
        volumes: Collection[str] = (),
        opts: pulumi.ResourceOptions | None = None,
    ) -> None:
        super().__init__(f"{TYPE}:Site", name, {}, opts)
        self._there = volumes
        self.prefix = settings.general.name_prefix
        self.bind_address = settings.general.bind_address
        self.publish_data_stores = settings.general.publish_data_stores
        self.postgres_memory = settings.general.postgres_memory
        self.minio_memory = settings.general.minio_memory
        self.keep_data = settings.general.data_retention == "keep"
        self.stack = f"{PROJECT}/{pulumi.get_stack()}"
        # It outlives what is kept, as its volumes carry it.
        identity = random.RandomId(
            "identity",
            byte_length=8,
            opts=pulumi.ResourceOptions(parent=self, protect=self.keep_data),
        )
        self.identity: pulumi.Output[str] = identity.hex
        self.images = Images(settings, self)
        self.edge = self.network("edge", self, internal=False)
        self.register_outputs({})

    @property
    def host(self) -> str:
        """Where this machine reaches what is published."""
        if self.bind_address in ("0.0.0.0", "127.0.0.1"):
            return "localhost"
        if self.bind_address in ("::", "::1"):
            return "[::1]"
        return in_url(self.bind_address)

    def full_name(self, name: str) -> str:
        """The name on the engine."""
        return f"{self.prefix}{name}"

    def labels(self, **more: pulumi.Input[str]) -> Mapping[str, pulumi.Input[str]]:
        """What marks everything of this stack on the engine."""
        own = {"stack": self.stack, "id": self.identity, **more}
        return {f"{PROJECT}.{key}": own[key] for key in sorted(own)}

    def secrets(self, parent: pulumi.Resource) -> Secrets:
        """Where a component's secrets come from."""
        return Secrets(parent=parent, keep=self.keep_data)

    def network(self, name: str, parent: pulumi.Resource, *, internal: bool) -> docker.Network:
        """A bridge network; an internal one has no way out of the machine, and none in."""
        return docker.Network(
            f"network-{name}",
            name=self.full_name(network_of(name)),
            driver="bridge",
            internal=internal,
            labels=[
                docker.NetworkLabelArgs(label=label, value=value) for label, value in self.labels().items()
            ],
            opts=pulumi.ResourceOptions(parent=parent, delete_before_replace=True),
        )

    def volumes(
        self, stores: Mapping[str, str], parent: pulumi.Resource, secrets: Secrets
    ) -> Mapping[str, docker.Volume]:
        """A volume for each store of which the settings give no address. What a store left that went elsewhere stays until `destroy`."""
        return {
            store: self._volume(volume_of(store), parent, secrets)
            for store, managed in stores.items()
            if not managed or self.full_name(volume_of(store)) in self._there
        }

    def _volume(self, name: str, parent: pulumi.Resource, secrets: Secrets) -> docker.Volume:
        """Data that outlives its container, and by the retention setting the stack. It goes before the secrets that unlock it."""
        return docker.Volume(
            f"volume-{name}",
            name=self.full_name(name),
            labels=[
                docker.VolumeLabelArgs(label=label, value=value) for label, value in self.labels().items()
            ],
            opts=pulumi.ResourceOptions(
                parent=parent,
                protect=self.keep_data,
                depends_on=secrets.made,
                delete_before_replace=True,
                # None of it is worth the loss of the data that a replacement would be. A volume may have been made by hand
                # before, on a disk of its own.
                ignore_changes=["labels", "driver", "driverOpts"],
            ),
        )
