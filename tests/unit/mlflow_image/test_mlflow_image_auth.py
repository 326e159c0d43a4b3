"""Credentials, the limit on guesses, the gate and the server's settings, with a clock of the test's own."""

from __future__ import annotations

import tempfile
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from mlflow_stack_auth.credentials import Changes, Credentials, Limiter, TooManyGuesses
from mlflow_stack_auth.gate import UNAUTHENTICATED, Gate, Refusal, Request
from mlflow_stack_auth.given import StartError
from mlflow_stack_auth.serve import command, settings


class World:
    """A user database that counts how often it is asked, a clock, and two processes of the server."""

    def __init__(self, ttl: float = 30) -> None:
        self.now = 0.0
        self.asked = 0
        self.passwords = {"ann": "right", "bob": "right"}
        with tempfile.TemporaryDirectory() as folder:
            shared = Path(folder) / "changes"
            self.credentials, self.others = self._process(ttl, shared), self._process(ttl, shared)
            self.changes = Changes(shared)

    def _process(self, ttl: float, shared: Path) -> Credentials:
        return Credentials(
            self.check,
            ttl,
            Changes(shared),
            by_user=Limiter(3, 10, self.clock),
            by_address=Limiter(20, 1, self.clock),
            clock=self.clock,
        )

    def clock(self) -> float:
        return self.now

    def check(self, username: str, password: str) -> bool:
        self.asked += 1
        return self.passwords.get(username) == password

    def valid(self, username: str, password: str, address: str = "10.0.0.1") -> bool:
        return self.credentials.valid(username, password, address)


def test_a_right_password_is_looked_up_once_within_the_ttl() -> None:
    world = World(ttl=30)
    assert [world.valid("ann", "right") for _ in range(5)] == [True] * 5
    assert world.asked == 1
    world.now = 30
    world.passwords["ann"] = "changed elsewhere"
    assert not world.valid("ann", "right")


def test_without_a_ttl_every_request_is_looked_up() -> None:
    world = World(ttl=0)
    assert all(world.valid("ann", "right") for _ in range(4))
    assert world.asked == 4


def test_a_wrong_password_is_never_remembered() -> None:
    world = World()
    assert not world.valid("ann", "new")
    world.passwords["ann"] = "new"
    assert world.valid("ann", "new")


def test_the_password_is_not_kept() -> None:
    world = World()
    world.valid("ann", "right")
    assert "right" not in repr(vars(world.credentials))


def test_a_changed_password_acts_at_once_in_every_process() -> None:
    world = World()
    for process in (world.credentials, world.others):
        assert process.valid("ann", "right", "10.0.0.1")
    world.passwords["ann"] = "other"
    world.changes.tell()
    for process in (world.credentials, world.others):
        assert not process.valid("ann", "right", "10.0.0.1")


def test_a_change_counts_again_each_time() -> None:
    world = World()
    for asked in (1, 2, 3):
        assert world.valid("bob", "right")
        assert world.valid("bob", "right")
        assert world.asked == asked
        world.changes.tell()


def test_who_is_looked_at_anew_after_a_change_has_made_no_guess() -> None:
    world = World()
    assert world.valid("ann", "right")
    assert [world.valid("ann", f"guess {n}") for n in range(3)] == [False] * 3
    world.changes.tell()
    assert world.valid("ann", "right")


def test_a_password_changed_while_it_is_looked_up_is_not_remembered() -> None:
    world = World()
    check = world.check

    def changes_meanwhile(username: str, password: str) -> bool:
        right = check(username, password)
        world.changes.tell()
        world.credentials._fresh(b"another request's")
        return right

    world.credentials._check = changes_meanwhile
    world.valid("ann", "right")
    world.passwords["ann"] = "other"
    assert not world.valid("ann", "right")


def test_guesses_are_limited_by_user_and_refill() -> None:
    world = World()
    assert [world.valid("ann", f"guess {n}") for n in range(3)] == [False] * 3
    with pytest.raises(TooManyGuesses) as refused:
        world.valid("ann", "guess", "10.9.9.9")
    assert refused.value.retry_after == 10
    assert world.asked == 3
    assert world.valid("bob", "right")
    world.now = 10
    assert world.valid("ann", "right")


def test_guesses_are_limited_by_address_over_many_names() -> None:
    world = World()
    for n in range(20):
        world.valid(f"name {n}", "guess")
    with pytest.raises(TooManyGuesses):
        world.valid("another", "guess")
    assert world.valid("bob", "right", "10.0.0.2")


def test_who_was_right_before_is_never_locked_out() -> None:
    world = World(ttl=30)
    assert world.valid("ann", "right")
    for n in range(3):
        world.valid("ann", f"guess {n}")
    world.now = 0.5 + 30
    for _ in range(3):
        world.valid("ann", "guess")
    assert world.valid("ann", "right")


def test_right_passwords_are_no_guesses() -> None:
    world = World(ttl=0)
    for n in range(50):
        world.passwords[f"user {n}"] = "right"
        assert world.valid(f"user {n}", "right")


def test_what_is_remembered_of_guesses_is_bounded() -> None:
    limiter = Limiter(3, 10)
    for n in range(10_100):
        limiter.take(str(n))
    assert len(limiter._buckets) == 10_000


def test_equal_requests_that_arrive_together_are_looked_up_once() -> None:
    world = World()
    gate = threading.Event()
    check = world.check

    def slow(username: str, password: str) -> bool:
        gate.wait(10)
        return check(username, password)

    world.credentials._check = slow
    with ThreadPoolExecutor(8) as pool:
        answers = [pool.submit(world.valid, "ann", "right") for _ in range(8)]
        while sum(answer.running() for answer in answers) < 8:
            time.sleep(0.001)
        gate.set()
        assert all(answer.result(10) for answer in answers)
    assert world.asked == 1


def _gate(origins: str = "") -> Gate:
    def login(header: str | None, address: str) -> Refusal | None:
        return None if header == "good" else UNAUTHENTICATED

    return Gate(login, "localhost,localhost:*,[::1]:*,*.example", origins)


def _status(gate: Gate, method: str, path: str, **headers: str) -> str:
    refused = gate.refusal(Request(method, path, "10.0.0.1", headers))
    return refused.status[:3] if refused else "in"


@pytest.mark.parametrize(
    "path", ["/", "/version", "/health/", "/healthz", "//health", "/static-files/x", "/signup"]
)
def test_a_stranger_gets_in_nowhere(path: str) -> None:
    assert _status(_gate(), "GET", path, host="localhost:5000") == "401"


def test_health_is_for_everybody_to_read() -> None:
    assert _status(_gate(), "GET", "/health", host="localhost") == "in"
    assert _status(_gate(), "POST", "/health", host="localhost") == "401"


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("localhost", "in"),
        ("LOCALHOST:80", "in"),
        ("[::1]:5000", "in"),
        ("a.example", "in"),
        ("a.example.evil", "403"),
        ("localhost,evil", "403"),
        ("1:5000", "403"),
        ("", "403"),
    ],
)
def test_only_known_hosts_are_answered(host: str, status: str) -> None:
    assert _status(_gate(), "GET", "/version", host=host, authorization="good") == status


@pytest.mark.parametrize(
    ("method", "origin", "status"),
    [
        ("POST", "http://localhost:5000", "in"),
        ("POST", "https://front.example", "in"),
        ("POST", "https://evil.example", "403"),
        ("DELETE", "null", "403"),
        ("POST", "http://[", "403"),
        ("POST", "localhost:5000", "403"),
        ("GET", "https://evil.example", "in"),
    ],
)
def test_pages_of_other_sites_change_nothing(method: str, origin: str, status: str) -> None:
    gate = _gate("https://front.example")
    headers = {"host": "localhost:5000", "origin": origin, "authorization": "good"}
    assert _status(gate, method, "/api", **headers) == status


@pytest.fixture
def given(tmp_path: Path) -> dict[str, str]:
    config = tmp_path / "basic_auth.ini"
    config.touch()
    return {"MLFLOW_AUTH_CONFIG_PATH": str(config), "MLFLOW_ARTIFACTS_DESTINATION": "s3://bucket"}


SECRETS = {
    "MLFLOW_BACKEND_STORE_URI": "postgresql://secret-uri",
    "MLFLOW_FLASK_SERVER_SECRET_KEY": "secret-key",
}


@pytest.mark.parametrize(("version", "server"), [((3, 4), "gunicorn"), ((3, 17), "uvicorn")])
def test_each_version_gets_its_server_without_a_secret_on_its_command_line(
    given: dict[str, str], version: tuple[int, ...], server: str
) -> None:
    environment = settings(given, SECRETS, version)
    arguments = command(environment)
    assert arguments[0] == server
    assert not any("secret" in argument for argument in arguments)
    assert environment["_MLFLOW_SERVER_FILE_STORE"] == SECRETS["MLFLOW_BACKEND_STORE_URI"]


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("MLFLOW_WORKERS", "0"),
        ("MLFLOW_THREADS", "many"),
        ("MLFLOW_DB_POOL_SIZE", "-1"),
        ("MLFLOW_ARTIFACTS_DESTINATION", ""),
        ("MLFLOW_AUTH_CONFIG_PATH", "/no/such/file"),
    ],
)
def test_a_bad_variable_is_named(given: dict[str, str], name: str, value: str) -> None:
    with pytest.raises(StartError, match=name):
        settings(given | {name: value}, SECRETS, (3, 4))
