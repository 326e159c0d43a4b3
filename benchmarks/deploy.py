"""`pulumi up` against `docker compose up --wait`: the same containers on the same images, each in turn, medians.

Run it with `python -m benchmarks deploy`. Where a deployment's time goes is read from the engine's events, for both in the same way.
"""

from __future__ import annotations

import json
import statistics
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from airgap.images import RECIPES, ensure
from benchmarks.compose import Compose, dependencies, generate
from benchmarks.report import a_stack, table
from scripts.bootstrap.commands import DESTROY
from scripts.machine.processes import say
from tests.deployment import SERVICES, Deployment, pulumi_environment
from tests.engine import docker, relabelled, tag_of

STEPS = ("fresh", "no change", "one image changed", "destroy")
_CHANGED = "mlflow"
_ALL = [*SERVICES["mlflow"], *SERVICES["langfuse"]]
_EMPTY_PROGRAM = "import pulumi\n"
# What has to be the same for both; paths, names of networks and labels are each one's own.
_SAME = {
    "Config": ("Entrypoint", "Cmd", "Env", "Healthcheck", "User"),
    "HostConfig": (
        *("Memory", "MemorySwap", "CapAdd", "CapDrop", "SecurityOpt", "PortBindings", "RestartPolicy"),
        "LogConfig",
    ),
}


@dataclass
class Timeline:
    """When each service was started and when it was ready, in seconds from the command's beginning."""

    seconds: float
    started: dict[str, float] = field(default_factory=dict)
    ready: dict[str, float] = field(default_factory=dict)

    def note(self, line: str, began: float, prefix: str) -> None:
        """Take in an event of the engine, as a line of JSON."""
        event = json.loads(line)
        attributes, action = event["Actor"]["Attributes"], event["Action"]
        name = attributes.get("name", "")
        if not name.startswith(prefix):
            return
        service, at = name.removeprefix(prefix), event["timeNano"] / 1e9 - began
        if action == "start":
            self.started[service] = at
            self.ready.pop(service, None)
        elif action == "health_status: healthy" or (action == "die" and attributes.get("exitCode") == "0"):
            self.ready.setdefault(service, at)

    def durations(self) -> dict[str, float]:
        """Service -> how long it took from its start until it was ready."""
        return {name: self.ready[name] - at for name, at in self.started.items() if name in self.ready}

    def waiting(self) -> float:
        """How long at least one service was between its start and being ready."""
        total, covered = 0.0, 0.0
        for name, start in sorted(self.started.items(), key=lambda item: item[1]):
            end = self.ready.get(name, start)
            total += max(0.0, end - max(start, covered))
            covered = max(covered, end)
        return total

    def before(self) -> float:
        """From the command's beginning to the first start of a container."""
        return min(self.started.values(), default=self.seconds)

    def after(self) -> float:
        """From the last service being ready to the command's end."""
        return self.seconds - max(self.ready.values(), default=0.0)

    def between(self) -> float:
        """The rest: some services are ready, and the next ones are not yet started."""
        return self.seconds - self.before() - self.waiting() - self.after() if self.started else 0.0


def longest_chain(durations: Mapping[str, float], needs: Mapping[str, set[str]]) -> tuple[float, list[str]]:
    """The longest sum of durations along what waits for what, and its services: no deployment can be faster."""

    def chain(name: str) -> tuple[float, list[str]]:
        longest: tuple[float, list[str]] = max((chain(other) for other in needs[name]), default=(0.0, []))
        return longest[0] + durations.get(name, 0.0), [*longest[1], name]

    return max(chain(name) for name in needs)


def timed(prefix: str, action: Callable[[], object]) -> Timeline:
    """Do it, and look where the time went."""
    # Listening meanwhile: the engine remembers its last events only, and health checks make many.
    listener = subprocess.Popen(
        [
            *("docker", "events", "--filter", "type=container", "--format", "{{json .}}"),
            *(f"--filter=event={kind}" for kind in ("start", "die", "health_status")),
        ],
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        began = time.time()
        action()
        timeline = Timeline(time.time() - began)
    finally:
        listener.terminate()
        lines = listener.communicate()[0].splitlines()
    for line in lines:
        timeline.note(line, began, prefix)
    return timeline


def equal_to(before: Mapping[str, Any], after: Mapping[str, Any]) -> list[str]:
    """In what two inspected sets of containers differ."""

    def view(found: Mapping[str, Any], part: str, key: str) -> Any:
        value = found[part].get(key)
        if key == "CapAdd":
            return sorted(name.removeprefix("CAP_") for name in value or ())
        if key == "Env":
            return sorted(value or ())
        return value or None

    differences = [
        f"{service}: {key}"
        for service in before
        for part, keys in _SAME.items()
        for key in keys
        if view(before[service], part, key) != view(after[service], part, key)
    ]
    return differences + [
        f"{service}: Image" for service in before if before[service]["Image"] != after[service]["Image"]
    ]


@contextmanager
def another_image(image: str) -> Iterator[str]:
    """A tag of the same content with another id."""
    tag = f"mlops-stack-bench/{_CHANGED}:changed"
    try:
        yield relabelled(image, tag)
    finally:
        docker("rmi", tag, check=False)


@dataclass
class Comparison:
    """One stack, deployed by the one and by the other."""

    stack: Deployment
    compose: Compose
    compose_changed: Compose
    images: Mapping[str, str]
    changed: str
    needs: Mapping[str, set[str]]
    seen: dict[tuple[str, str], list[Timeline]] = field(default_factory=dict)

    def round(self, number: int) -> None:
        """Both in turn; who goes first changes."""
        turns = [("compose", self._compose), ("pulumi", self._pulumi)]
        for name, steps in turns if number % 2 else reversed(turns):
            for step, action in zip(STEPS, steps(), strict=True):
                timeline = timed(self.stack.prefix, action)
                self.seen.setdefault((name, step), []).append(timeline)
                say(f"round {number}, {name}, {step}: {timeline.seconds:.1f} s")

    def _compose(self) -> Iterator[Callable[[], object]]:
        up = ("up", "--detach", "--wait")
        yield lambda: self.compose.run(*up)
        yield lambda: self.compose.run(*up)
        yield lambda: self.compose_changed.run(*up)
        yield lambda: self.compose_changed.run("down", "--volumes")

    def _pulumi(self) -> Iterator[Callable[[], object]]:
        self._use(self.images)
        yield lambda: self.stack.up().ok()
        yield lambda: self.stack.up("--expect-no-changes").ok()
        self._use({**self.images, _CHANGED: self.changed})
        yield lambda: self.stack.up().ok()
        yield lambda: self.stack.pulumi(*DESTROY).ok()

    def _use(self, images: Mapping[str, str]) -> None:
        self.stack.configure(images=None)
        self.stack.configure(images=dict(images))

    def median(self, who: str, step: str) -> float:
        return statistics.median(timeline.seconds for timeline in self.seen[who, step])

    def middle(self, who: str, step: str) -> Timeline:
        """The timeline of the median round."""
        return sorted(self.seen[who, step], key=lambda item: item.seconds)[
            (len(self.seen[who, step]) - 1) // 2
        ]


def _inspected(stack: Deployment) -> dict[str, Any]:
    return {service: stack.inspect(service) for service in _ALL}


@contextmanager
def comparison() -> Iterator[Comparison]:
    """Deployed once by Pulumi for the file to be made of, and once by compose for both to be held against each other."""
    with a_stack() as stack, tempfile.TemporaryDirectory(prefix="mlops-stack-bench-") as folder:
        stack.up().ok()
        resources = json.loads(stack.export("--show-secrets"))["deployment"]["resources"]
        ours = _inspected(stack)
        stack.pulumi(*DESTROY).ok()
        images = {found["Image"]: tag_of(found["Image"]) for found in ours.values()}
        content = generate(resources, images, Path(folder) / "files")
        compose = Compose.prepared(Path(folder), content)
        mlflow = images[ours["mlflow-server"]["Image"]]
        with another_image(mlflow) as changed:
            other = Path(folder) / "compose-changed.json"
            content["services"]["mlflow-server"]["image"] = changed
            other.write_text(json.dumps(content))
            # The stack takes MLflow's image as it is, too: building is no part of what is compared.
            named = {**ensure(RECIPES), _CHANGED: mlflow}
            try:
                compose.run("up", "--detach", "--wait")
                if differences := equal_to(ours, _inspected(stack)):
                    raise SystemExit(
                        f"compose's containers differ from the stack's: {', '.join(differences)}"
                    )
                compose.run("down", "--volumes")
                yield Comparison(
                    stack,
                    compose,
                    Compose(other, compose.environment),
                    named,
                    changed,
                    dependencies(resources),
                )
            finally:
                compose.run("down", "--volumes")


def empty_program() -> tuple[float, float]:
    """Seconds that the CLI takes for a program that declares nothing: the first `up`, and one with no change."""
    with tempfile.TemporaryDirectory(prefix="mlops-stack-bench-") as name:
        folder = Path(name)
        (folder / "Pulumi.yaml").write_text("name: empty\nruntime: python\n")
        (folder / "__main__.py").write_text(_EMPTY_PROGRAM)
        environment = {
            **pulumi_environment(),
            "PULUMI_BACKEND_URL": f"file://{folder}",
            "PULUMI_CONFIG_PASSPHRASE": "empty",
        }

        def pulumi(*arguments: str) -> float:
            began = time.monotonic()
            subprocess.run(
                ["pulumi", "--non-interactive", *arguments],
                cwd=folder,
                env=environment,
                stdin=subprocess.DEVNULL,
                capture_output=True,
                check=True,
            )
            return time.monotonic() - began

        pulumi("stack", "init", "empty")
        first = pulumi("up", "--yes", "--skip-preview")
        return first, statistics.median(pulumi("up", "--yes", "--skip-preview") for _ in range(3))


def main(rounds: int = 3) -> None:
    """Measure and print."""
    with comparison() as both:
        for number in range(rounds):
            both.round(number)
        _, floor = empty_program()
        print(f"Twelve containers, {rounds} rounds in turn, medians in seconds.\n")
        table(
            ("step", "docker compose", "pulumi", "ratio", "difference"),
            (
                (
                    step,
                    f"{(theirs := both.median('compose', step)):.1f}",
                    f"{(ours := both.median('pulumi', step)):.1f}",
                    f"{ours / theirs:.2f}",
                    f"{ours - theirs:+.1f}",
                )
                for step in STEPS
            ),
        )
        print(
            f"Pulumi's CLI takes {floor:.1f} s for an empty program, so the stack's own part of no change is "
            f"{both.median('pulumi', 'no change') - floor:.1f} s.\n"
        )
        print("Where the time of the median round goes, seconds by the engine's events:\n")
        table(
            (
                "",
                "total",
                "until the first container starts",
                "waiting for health or exit",
                "between",
                "after",
            ),
            (
                (f"{who}, {step}", *(f"{part:.1f}" for part in _parts(both.middle(who, step))))
                for step in ("fresh", "one image changed")
                for who in ("compose", "pulumi")
            ),
        )
        for who in ("compose", "pulumi"):
            length, names = longest_chain(both.middle(who, "fresh").durations(), both.needs)
            print(f"Longest chain of {who}'s health times: {length:.1f} s ({' → '.join(names)}).\n")
        _starting(both)


def _parts(timeline: Timeline) -> tuple[float, ...]:
    return (timeline.seconds, timeline.before(), timeline.waiting(), timeline.between(), timeline.after())


def _starting(both: Comparison) -> None:
    """How long each service takes to be ready."""
    durations = {who: both.middle(who, "fresh") for who in ("compose", "pulumi")}
    table(
        ("service", "compose: started at", "ready after", "pulumi: started at", "ready after"),
        (
            (
                service,
                *(
                    f"{value:.1f}"
                    for timeline in durations.values()
                    for value in (
                        timeline.started.get(service, 0.0),
                        timeline.durations().get(service, 0.0),
                    )
                ),
            )
            for service in _ALL
        ),
    )
