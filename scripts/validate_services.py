"""Says of every service of a stack whether it works: each is used, not only looked at.

    python -m scripts.validate_services [--stack dev] [--json]

Ends with 0 if all works, 1 if something does not, 2 if the stack's outputs cannot be read.
"""

from __future__ import annotations

import argparse
import json
import math
import secrets
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import requests
from rich.console import Console
from rich.table import Table

if __package__ in (None, ""):  # started as a file: the project's packages are one folder up
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from components.mlflow_auth.transport import session_for
from scripts.bootstrap import stack as stacks
from scripts.machine.processes import end

OK, FAILED, BLOCKED, WARNING = "ok", "failed", "blocked", "warning"
_BUCKET_MAKERS = {"mlflow-minio": "mlflow-create-bucket", "langfuse-minio": "langfuse-init-minio"}
ONE_SHOTS = tuple(_BUCKET_MAKERS.values())
EXPERIMENT = "mlops-stack-validation"
_HTTP_SECONDS = 20
_DOCKER_SECONDS = 30
_LOG_LINES = 6
_LOW_DISK_PERCENT = 10
_GIB = 1 << 30


@dataclass
class Result:
    """What was found out about one service."""

    service: str
    status: str = OK
    version: str = ""
    detail: str = ""
    hint: str = ""
    log: list[str] = field(default_factory=list)
    seconds: float = 0.0


class Broken(Exception):
    """A service does not do its work: what was seen, and what to do."""

    def __init__(self, seen: str, hint: str = "") -> None:
        super().__init__(seen)
        self.hint = hint


@dataclass(frozen=True)
class Stack:
    """The outputs of a stack, as far as they are needed here, and its name for those who are told what to do."""

    outputs: Mapping[str, Any]
    name: str = "dev"

    @property
    def containers(self) -> dict[str, str]:
        return dict(self.outputs.get("containers") or {})

    def has(self, *names: str) -> bool:
        return all(self.outputs.get(name) for name in names)

    def make(self, target: str) -> str:
        return f"`{stacks.Stack(self.name).make(target)}`"

    def bucket_maker(self, store: str) -> str | None:
        """The run-once container that makes the buckets of a container of MinIO."""
        service = next((service for service, name in self.containers.items() if name == store), "")
        return self.containers.get(_BUCKET_MAKERS.get(service, ""))

    def redact(self, text: str) -> str:
        """The text without any of the stack's secrets."""
        hidden = [
            str(value)
            for name, value in self.outputs.items()
            if name.endswith(("Password", "SecretKey")) and value
        ]
        hidden += [str(value) for value in (self.outputs.get("mlflowUserPasswords") or {}).values()]
        for value in sorted(hidden, key=len, reverse=True):
            text = text.replace(value, "***")
        return text


# -- Docker ------------------------------------------------------------------------------------------------


def docker(*arguments: str, check: bool = True) -> str:
    """What a docker command printed."""
    try:
        done = subprocess.run(
            ["docker", *arguments],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=_DOCKER_SECONDS,
            check=False,
        )
    except FileNotFoundError:
        raise Broken("the command `docker` is not on PATH", "install Docker's client") from None
    except subprocess.TimeoutExpired:
        raise Broken(
            f"`docker {arguments[0]}` gave no answer in {_DOCKER_SECONDS} s",
            "see whether the machine is overloaded",
        ) from None
    if check and done.returncode:
        lines = (done.stderr or done.stdout).strip().splitlines() or [f"ended with {done.returncode}"]
        raise Broken(lines[-1])
    return done.stdout + (done.stderr if arguments[0] == "logs" else "")


def in_container(name: str, script: str) -> str:
    """What a POSIX shell script printed inside. Scripts name the files of secrets, never a secret."""
    return docker("exec", name, "sh", "-c", script).strip()


def container_state(name: str, stack: Stack) -> dict[str, Any]:
    """The container's configuration and state; Broken if there is none."""
    try:
        return json.loads(docker("container", "inspect", name))[0]
    except Broken as broken:
        if "no such container" in str(broken).lower():
            raise Broken(f"there is no container {name}", f"{stack.make('up')} makes it again") from None
        raise


def require_running(name: str, stack: Stack) -> dict[str, Any]:
    """The container's inspection; Broken unless it runs."""
    found = container_state(name, stack)
    state = found["State"]
    if not state["Running"] or state.get("Paused"):
        what = "paused" if state.get("Paused") else f"{state['Status']} (exit code {state['ExitCode']})"
        killed = ", killed for want of memory" if state.get("OOMKilled") else ""
        raise Broken(
            f"the container is {what}{killed}",
            f"{stack.make('start')} starts it again, and so does {stack.make('up')}",
        )
    return found


# -- One check for each kind of service: it returns (version, detail) --------------------------------------

Check = Callable[[str, Stack], "tuple[str, str]"]


def check_one_shot(name: str, stack: Stack) -> tuple[str, str]:
    state = container_state(name, stack)["State"]
    if state["Running"]:
        raise Broken("it still runs", "it ends once its store answers; look at the store")
    if state["ExitCode"]:
        raise Broken(
            f"it ended with {state['ExitCode']}", f"the log says why; {stack.make('up')} runs it again"
        )
    return "", "has done its work"


_PSQL = """
[ -z "${POSTGRES_PASSWORD_FILE:-}" ] || export PGPASSWORD="$(cat "$POSTGRES_PASSWORD_FILE")"
user=${POSTGRES_USER:-postgres}
psql -X -v ON_ERROR_STOP=1 -U "$user" -d "${POSTGRES_DB:-$user}" -qAt -F ' ' <<'SQL'
BEGIN; CREATE TEMPORARY TABLE validation (answer int) ON COMMIT DROP; INSERT INTO validation VALUES (42);
SELECT current_setting('server_version_num')::int / 10000, pg_database_size(current_database()),
  (SELECT count(*) FROM information_schema.tables WHERE table_schema = 'public') FROM validation; COMMIT;
SQL
"""


def check_postgres(name: str, stack: Stack) -> tuple[str, str]:
    require_running(name, stack)
    version, size, tables = in_container(name, _PSQL).split()
    return version, f"written and read; {tables} tables, {_size(int(size))}"


_MC = """
value() {  # as MinIO's entrypoint: a file, a name below /run/secrets, or the variable itself
    eval "plain=\\${$1:-} file=\\${$1_FILE:-}"
    for path in "/run/secrets/$file" "$file"; do
        [ ! -f "$path" ] || { cat "$path"; return; }
    done
    printf %s "$plain"
}
export MC_HOST_own="http://$(value MINIO_ROOT_USER):$(value MINIO_ROOT_PASSWORD)@127.0.0.1:9000"
own() { mc --config-dir /tmp/.validation-mc --quiet "$@"; }
minio --version | head -n 1
# Words of the shell alone: the official image has neither sed nor grep. Only the names of buckets end in a slash.
listed=$(own ls own)
for bucket in $listed; do
    case $bucket in */) bucket=${bucket%/} ;; *) continue ;; esac
    echo kept | own pipe "own/$bucket/.validation" >/dev/null
    [ "$(own cat "own/$bucket/.validation")" = kept ]
    own rm "own/$bucket/.validation" >/dev/null
    echo "$bucket"
done
"""


def check_minio(name: str, stack: Stack) -> tuple[str, str]:
    require_running(name, stack)
    first, *buckets = in_container(name, "set -e\n" + _MC).splitlines()
    if not buckets:
        maker = stack.bucket_maker(name)
        # Deployed once, the container that makes them does not run again by itself.
        raise Broken("it has no bucket", f"`docker rm {maker}`, then {stack.make('up')}" if maker else "")
    version = first.split()[2].removeprefix("RELEASE.")[:10] if len(first.split()) > 2 else ""
    return version, f"written and read: {', '.join(buckets)}"


# Which file holds the password is the stack's affair: the one that Redis takes is the right one.
_REDIS = """
for file in /run/secrets/*; do
    [ ! -f "$file" ] || export REDISCLI_AUTH="$(cat "$file")"
    [ "$(redis-cli --no-auth-warning ping 2>/dev/null)" = PONG ] && break
done
redis-cli set mlops-stack:validation kept EX 60 | grep -q OK
[ "$(redis-cli get mlops-stack:validation)" = kept ]
redis-cli info server | sed -n 's/^redis_version:\\([0-9.]*\\).*/\\1/p'
for state in wait failed; do
    sum=0
    for key in $(redis-cli --scan --pattern "bull:*:$state"); do
        case $state in wait) count=$(redis-cli llen "$key") ;; *) count=$(redis-cli zcard "$key") ;; esac
        sum=$((sum + count))
    done
    echo "$sum"
done
"""


def check_redis(name: str, stack: Stack) -> tuple[str, str]:
    require_running(name, stack)
    version, waiting, failed = in_container(name, "set -e\n" + _REDIS).split()
    return version, f"written and read; {waiting} jobs waiting, {failed} failed"


def check_clickhouse(name: str, stack: Stack) -> tuple[str, str]:
    """By the container's own health check, which queries as Langfuse's user."""
    test = (require_running(name, stack)["Config"].get("Healthcheck") or {}).get("Test") or []
    if test[:1] == ["CMD"]:
        # The check of the stack's own containers may rest before it asks, unless told not to.
        docker("exec", "--env", "HEALTH_NOW=1", name, *test[1:])
    elif test[:1] == ["CMD-SHELL"]:
        in_container(name, test[1])
    version = in_container(name, "clickhouse-client --version").split("version ")[-1].split()[0]
    return version.strip("."), "query answered" if test else "runs (it has no health check)"


def check_worker(name: str, stack: Stack) -> tuple[str, str]:
    require_running(name, stack)
    health = json.loads(in_container(name, "wget -qO- http://127.0.0.1:3030/api/health"))
    return str(health.get("version", "")), "CONTRACT DOUBLE, healthy" if health.get("double") else "healthy"


def check_web(name: str, stack: Stack) -> tuple[str, str]:
    require_running(name, stack)
    health = _langfuse(stack, "GET", "health?failIfDatabaseUnavailable=true").json()
    _langfuse(stack, "GET", "projects")
    double = "CONTRACT DOUBLE, not Langfuse; " if health.get("double") else ""
    return str(health.get("version", "")), f"{double}API keys accepted"


def check_mlflow(name: str, stack: Stack) -> tuple[str, str]:
    """A run with a metric and an artifact: written, read back, deleted."""
    require_running(name, stack)
    url = str(stack.outputs["mlflowUrl"]).rstrip("/")
    auth = (str(stack.outputs["mlflowAdminUsername"]), str(stack.outputs["mlflowAdminPassword"]))

    def call(method: str, path: str, **more: Any) -> requests.Response:
        return _http(method, f"{url}/{path}", auth=auth, **more)

    def api(method: str, path: str, **body: Any) -> Any:
        sent = {"params": body} if method == "GET" else {"json": body}
        return call(method, f"api/2.0/mlflow/{path}", **sent).json()

    version = call("GET", "version").text.strip()
    found = api("POST", "experiments/search", max_results=1, filter=f"name = '{EXPERIMENT}'", view_type="ALL")
    experiment = (found.get("experiments") or [None])[0] or api("POST", "experiments/create", name=EXPERIMENT)
    if experiment.get("lifecycle_stage") == "deleted":
        api("POST", "experiments/restore", experiment_id=experiment["experiment_id"])
    now = int(time.time() * 1000)
    run = api("POST", "runs/create", experiment_id=experiment["experiment_id"], start_time=now)["run"]["info"]
    try:
        api("POST", "runs/log-metric", run_id=run["run_id"], key="answer", value=42, timestamp=now)
        metrics = api("GET", "runs/get", run_id=run["run_id"])["run"]["data"]["metrics"]
        if [metric["value"] for metric in metrics] != [42]:
            raise Broken("a metric that was written could not be read back", "look at mlflow-postgres")
        detail = "run written and read"
        scheme, _, path = run["artifact_uri"].partition(":/")
        if scheme == "mlflow-artifacts":
            artifact = f"api/2.0/mlflow-artifacts/artifacts/{path.lstrip('/')}/validation.txt"
            content = secrets.token_bytes(64)
            call("PUT", artifact, data=content)
            if call("GET", artifact).content != content:
                raise Broken("an artifact came back changed", "look at mlflow-minio")
            call("DELETE", artifact)
            detail = "run and artifact written and read"
    finally:
        api("POST", "runs/delete", run_id=run["run_id"])
    return version, detail


def check_trace(stack: Stack, patience: float) -> tuple[str, str]:
    """A trace sent and found again: on its way it passes S3, Redis, the worker, ClickHouse and Postgres."""
    trace, sent = uuid.uuid4().hex, time.time_ns()
    span = {
        "traceId": trace,
        "spanId": secrets.token_hex(8),
        "name": EXPERIMENT,
        "startTimeUnixNano": str(sent),
        "endTimeUnixNano": str(sent + 1_000_000),
    }
    _langfuse(stack, "POST", "otel/v1/traces", json={"resourceSpans": [{"scopeSpans": [{"spans": [span]}]}]})
    seen = Broken("")
    while time.time_ns() - sent < patience * 1e9:
        try:
            _langfuse(stack, "GET", f"traces/{trace}")
        except Broken as broken:
            seen = broken
            time.sleep(0.5)
            continue
        seconds = (time.time_ns() - sent) / 1e9
        _langfuse(stack, "DELETE", f"traces/{trace}")
        return "", f"sent, found again after {seconds:.1f} s"
    raise Broken(
        f"sent, not found again within {patience:.0f} s ({seen})",
        "look at langfuse-worker's log and the queue's length",
    )


def _langfuse(stack: Stack, method: str, path: str, **more: Any) -> requests.Response:
    auth = (str(stack.outputs["langfusePublicKey"]), str(stack.outputs["langfuseSecretKey"]))
    return _http(
        method, f"{str(stack.outputs['langfuseUrl']).rstrip('/')}/api/public/{path}", auth=auth, **more
    )


def _http(method: str, url: str, **more: Any) -> requests.Response:
    """A good answer, or Broken; the message has no more of the URL than its path."""
    path = "/" + url.split("://", 1)[-1].partition("/")[2].partition("?")[0]
    try:
        with session_for(url) as session:
            answer = session.request(method, url, timeout=_HTTP_SECONDS, allow_redirects=False, **more)
    except requests.RequestException as error:
        raise Broken(
            f"{method} {path}: {type(error).__name__}", "see whether the port is published"
        ) from None
    if answer.status_code in (401, 403):
        raise Broken(
            f"{method} {path} answered {answer.status_code}",
            "the stack's credentials are not those of the server: were they changed outside of Pulumi?",
        )
    if not answer.ok:
        raise Broken(f"{method} {path} answered {answer.status_code}: {' '.join(answer.text.split())[:120]}")
    return answer


# -- The whole stack ---------------------------------------------------------------------------------------

_STORES: dict[str, Check] = {
    "mlflow-postgres": check_postgres,
    "mlflow-postgres-auth": check_postgres,
    "mlflow-minio": check_minio,
    "langfuse-postgres": check_postgres,
    "langfuse-clickhouse": check_clickhouse,
    "langfuse-redis": check_redis,
    "langfuse-minio": check_minio,
    **dict.fromkeys(ONE_SHOTS, check_one_shot),
}
_SERVERS: dict[str, Check] = {
    "mlflow-server": check_mlflow,
    "langfuse-worker": check_worker,
    "langfuse-web": check_web,
}
TRACE = "langfuse-trace"
_UPWARDS = {"mlflow": ("mlflow-server",), "langfuse": ("langfuse-worker", "langfuse-web", TRACE)}
ORDER = (
    *("mlflow-server", "mlflow-postgres", "mlflow-postgres-auth", "mlflow-minio", "mlflow-create-bucket"),
    *("langfuse-web", "langfuse-worker", "langfuse-postgres", "langfuse-clickhouse", "langfuse-redis"),
    *("langfuse-minio", "langfuse-init-minio", TRACE),
)


def validate(stack: Stack, patience: float = 60) -> list[Result]:
    """One result for each service that the stack has: first what stands alone, then what stands on it."""
    containers = stack.containers
    jobs: dict[str, Callable[[], tuple[str, str]]] = {
        service: lambda check=check, name=containers[service]: check(name, stack)  # type: ignore[misc]
        for service, check in {**_STORES, **_SERVERS}.items()
        if service in containers
    }
    first = _run(
        {name: job for name, job in jobs.items() if name in _STORES or name == "langfuse-worker"}, stack
    )
    second = {name: job for name, job in jobs.items() if name not in first}
    if "langfuse-web" in containers and stack.has("langfuseUrl", "langfusePublicKey", "langfuseSecretKey"):
        broken = any(result.status == FAILED for name, result in first.items() if name.startswith("langfuse"))
        second[TRACE] = lambda: check_trace(stack, min(patience, 5) if broken else patience)
    results = first | _run(second, stack)
    _blame(results)
    return sorted(results.values(), key=lambda result: ORDER.index(result.service))


def _run(jobs: Mapping[str, Callable[[], tuple[str, str]]], stack: Stack) -> dict[str, Result]:
    with ThreadPoolExecutor(max_workers=8) as pool:
        futures = {name: pool.submit(_checked, name, job, stack) for name, job in jobs.items()}
    return {name: future.result() for name, future in futures.items()}


def _checked(service: str, job: Callable[[], tuple[str, str]], stack: Stack) -> Result:
    started, result = time.monotonic(), Result(service)
    try:
        result.version, result.detail = job()
    except Broken as broken:
        result.status, result.detail, result.hint = FAILED, stack.redact(str(broken)), broken.hint
    except (KeyError, ValueError, IndexError, TypeError) as error:
        result.status, result.detail = FAILED, f"an answer that makes no sense ({type(error).__name__})"
        result.hint = "the service is of a version that this check does not know, or something else answers"
    if result.status == FAILED:
        result.log = _last_lines(service, stack)
    result.seconds = round(time.monotonic() - started, 2)
    return result


def _last_lines(service: str, stack: Stack) -> list[str]:
    name = stack.containers.get("langfuse-web" if service == TRACE else service)
    try:
        log = docker("logs", "--tail", str(_LOG_LINES), name, check=False) if name else ""
    except Broken:
        return []
    return [stack.redact(line)[:200] for line in log.splitlines()[-_LOG_LINES:]]


def _blame(results: dict[str, Result]) -> None:
    """What fails only because something below it does is blocked by that, so that the cause stands alone."""
    for product, servers in _UPWARDS.items():
        causes = [
            name
            for name, result in results.items()
            if name.startswith(f"{product}-") and name in _STORES and result.status == FAILED
        ]
        for name in servers:
            result = results.get(name)
            if result is None or result.status != FAILED:
                continue
            if causes:
                result.status, result.hint, result.log = BLOCKED, "", []
                result.detail = f"by {', '.join(causes)}: {result.detail}"
            else:
                causes = [name]


def volumes(stack: Stack) -> dict[str, str]:
    """Service -> size of its volume, as Docker counts it."""
    wanted = dict(stack.outputs.get("volumes") or {})
    if not wanted:
        return {}
    try:
        usage = json.loads(docker("system", "df", "--verbose", "--format", "{{json .}}"))
    except (Broken, ValueError):
        return {}
    sizes = {one["Name"]: one["Size"] for one in usage.get("Volumes") or []}
    return {service: sizes[name] for service, name in wanted.items() if name in sizes}


def disk(stack: Stack) -> Result | None:
    """How much room the engine has left, asked in the first container that runs."""
    for name in stack.containers.values():
        try:
            fields = in_container(name, "df -Pk / | tail -n 1").split()
        except Broken:
            continue
        total, free = int(fields[1]) * 1024, int(fields[3]) * 1024
        percent = 100 * free // max(total, 1)
        result = Result("disk", detail=f"{_size(free)} of {_size(total)} free ({percent} %)")
        if percent < _LOW_DISK_PERCENT:
            result.status, result.hint = (
                WARNING,
                "make room (`docker system prune`), or stores will stop writing",
            )
        return result
    return None


def _size(count: float) -> str:
    return f"{count / _GIB:.1f} GiB" if count >= _GIB else f"{count / (1 << 20):.1f} MiB"


# -- For people and for machines ---------------------------------------------------------------------------

_COLOURS = {OK: "green", FAILED: "bold red", BLOCKED: "yellow", WARNING: "yellow"}


def show(results: Iterable[Result], sizes: Mapping[str, str], console: Console) -> None:
    """A table of all services, then what to do about those that do not work."""
    results = list(results)
    table = Table(box=None, pad_edge=False)
    table.add_column("service", no_wrap=True)
    table.add_column("status", no_wrap=True)
    table.add_column("version", max_width=16, overflow="fold")
    table.add_column("what was seen", overflow="fold")
    table.add_column("volume", justify="right", no_wrap=True)
    for result in results:
        status = f"[{_COLOURS[result.status]}]{result.status}[/]"
        table.add_row(
            result.service, status, result.version, _plain(result.detail), sizes.get(result.service, "")
        )
    console.print(table)
    for result in results:
        if result.status == OK or not (result.hint or result.log):
            continue
        console.print(f"\n[bold]{result.service}[/]: {_plain(result.detail)}")
        if result.hint:
            console.print(f"  hint: {_plain(result.hint)}")
        for line in result.log:
            console.print(f"  | {_plain(line)}", highlight=False)


def _plain(text: str) -> str:
    return text.replace("[", "\\[")


def as_json(results: Iterable[Result], sizes: Mapping[str, str]) -> str:
    """Everything, for programs."""
    results = list(results)
    return json.dumps(
        {
            "ok": works(results),
            "double": any("CONTRACT DOUBLE" in result.detail for result in results),
            "services": [asdict(result) for result in results],
            "volumes": dict(sizes),
        },
        indent=2,
    )


def works(results: Iterable[Result]) -> bool:
    """Whether nothing failed; a warning is no failure."""
    return all(result.status in (OK, WARNING) for result in results)


def read_outputs(stack: str, file: str | None) -> Mapping[str, Any]:
    """The stack's outputs from Pulumi, or from a JSON file (`-`: standard input)."""
    if file is not None:
        found = json.loads(sys.stdin.read() if file == "-" else Path(file).read_text())
        if not isinstance(found, dict):
            raise ValueError(f"{file} does not hold a JSON object")
        for name in ("containers", "volumes", "mlflowUserPasswords"):
            if not isinstance(found.get(name) or {}, dict):
                raise ValueError(f"{name} in {file} is not a JSON object")
        return found
    return stacks.outputs(stack)


def seconds(value: str) -> float:
    number = float(value)
    if not 0 < number < math.inf:  # nan is neither
        raise ValueError
    return number


def main(arguments: list[str] | None = None) -> int:
    """The command line."""
    parser = argparse.ArgumentParser(prog="validate_services", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--stack", default="dev", help="the Pulumi stack (dev)")
    parser.add_argument(
        "--outputs", metavar="FILE", help="read the stack's outputs from JSON; - is standard input"
    )
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")
    parser.add_argument(
        "--patience",
        type=seconds,
        default=60,
        metavar="SECONDS",
        help="how long a trace may take to appear (60)",
    )
    options = parser.parse_args(arguments)
    try:
        stack = Stack(read_outputs(options.stack, options.outputs), options.stack)
    except Exception as error:  # whatever Pulumi, the file or its content has to say
        print(f"the stack's outputs cannot be read: {error}", file=sys.stderr)
        return 2
    if not stack.containers:
        print(f"the stack {options.stack!r} has no containers: run {stack.make('up')} first", file=sys.stderr)
        return 2
    results = validate(stack, options.patience)
    if room := disk(stack):
        results.append(room)
    sizes = volumes(stack)
    if options.json:
        print(as_json(results, sizes))
    else:
        show(results, sizes, Console(width=80) if not sys.stdout.isatty() else Console())
    return 0 if works(results) else 1


if __name__ == "__main__":
    end(main)
