"""Containers that run once. What depends on them goes on only if they ended with exit code 0."""

from __future__ import annotations

import pulumi
from pulumi import ResourceOptions

from components.service import ServiceArgs, declare
from components.site import TYPE, Site

_LAST_LINES = 5


class RunOnceFailed(Exception):
    """A container that runs once ended with another exit code than 0."""


class OneShot(pulumi.ComponentResource):
    """A run-once container. Pass `done` as a gate of what may start only after its success."""

    def __init__(self, name: str, site: Site, args: ServiceArgs, opts: ResourceOptions | None = None) -> None:
        super().__init__(f"{TYPE}:OneShot", name, {}, opts)
        self.container = declare(name, site, args, parent=self, run_once=True)
        self.name = site.full_name(name)
        # The provider calls a container that failed a success, so the exit code is looked at here.
        self.done: pulumi.Output[str] = pulumi.Output.all(
            self.container.exit_code, self.container.container_logs
        ).apply(lambda result: self._succeeded(name, *result))
        self.register_outputs({"done": self.done})

    def _succeeded(self, name: str, exit_code: int | None, logs: str | None) -> str:
        if exit_code:
            last = "\n".join((logs or "").strip().splitlines()[-_LAST_LINES:])
            raise RunOnceFailed(
                f"{self.name} ended with exit code {exit_code}:\n{last}\n"
                f"    fix: put right what it says, then: docker rm {self.name} && pulumi up --refresh"
            )
        return name
