"""Retries, errors and what messages may hold, against a server that misbehaves."""

from __future__ import annotations

import traceback

import pytest

from components.mlflow_auth import errors, transport
from components.mlflow_auth.client import MlflowAuthClient, User, password_problem
from components.mlflow_auth.transport import Patience, checked_url
from tests.unit.mlflow_auth.scripted import Answer, Scripted

PASSWORD = "s3cret-of-the-admin"
NEW_PASSWORD = "s3cret-of-the-user"
ADA = {"user": {"username": "ada", "is_admin": False, "id": 7}}
EXISTS = Answer(400, {"error_code": "RESOURCE_ALREADY_EXISTS", "message": f"(sqlite) hash of {NEW_PASSWORD}"})
GONE = Answer(404, {"error_code": "RESOURCE_DOES_NOT_EXIST", "message": "x"})


@pytest.fixture(autouse=True)
def pauses(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The pauses taken between tries, none of them waited for."""
    taken: list[float] = []
    monkeypatch.setattr(transport.time, "sleep", taken.append)
    return taken


def client(scripted: Scripted, **patience: float) -> MlflowAuthClient:
    return MlflowAuthClient(scripted.url, "admin", PASSWORD, patience=Patience(**patience))  # type: ignore[arg-type]


@pytest.mark.parametrize("status", [429, 502, 503, 504])
def test_waits_for_a_busy_server(scripted: Scripted, status: int, pauses: list[float]) -> None:
    scripted.answers = [Answer(status), Answer(status), Answer(body=ADA)]
    assert client(scripted).get_user("ada") == User("ada", False, 7)
    assert len(scripted.asked) == 3
    assert len(pauses) == 2


@pytest.mark.parametrize("status", [400, 401, 403, 404, 500, 501])
def test_other_failures_are_final(scripted: Scripted, status: int) -> None:
    scripted.answers = [Answer(status)]
    with pytest.raises(errors.MlflowAuthError):
        client(scripted).get_user("ada")
    assert len(scripted.asked) == 1


def test_gives_up_after_its_tries(scripted: Scripted, pauses: list[float]) -> None:
    scripted.answers = [Answer(503)]
    with pytest.raises(errors.Transient, match="answered 503 to 3 tries"):
        client(scripted, tries=3).get_user("ada")
    assert len(scripted.asked) == 3
    assert len(pauses) == 2


def test_does_what_retry_after_says_within_bounds(scripted: Scripted, pauses: list[float]) -> None:
    after = [Answer(429, headers={"Retry-After": text}) for text in ("2", "86400", "soon", "-1")]
    scripted.answers = [*after, Answer(body=ADA)]
    client(scripted, longest_pause=5.0, first_pause=0.1).get_user("ada")
    assert pauses[:2] == [2.0, 5.0]
    assert all(pause <= 0.1 * 2**3 for pause in pauses[2:])


def test_a_creation_whose_answer_was_lost_counts_when_the_password_logs_in(scripted: Scripted) -> None:
    scripted.answers = [Answer(drop=True), EXISTS, Answer(body=ADA)]
    assert client(scripted).create_user("ada", NEW_PASSWORD) == User("ada", False, 7)
    assert [asked[0] for asked in scripted.asked] == ["POST", "POST", "GET"]
    assert scripted.asked[-1][2] == f"ada:{NEW_PASSWORD}"


def test_a_creation_whose_answer_was_lost_fails_when_the_name_is_somebody_elses(scripted: Scripted) -> None:
    scripted.answers = [Answer(drop=True), EXISTS, Answer(401)]
    with pytest.raises(errors.AlreadyExists):
        client(scripted).create_user("ada", NEW_PASSWORD)


def test_a_conflict_at_the_first_try_is_a_conflict(scripted: Scripted) -> None:
    scripted.answers = [EXISTS]
    with pytest.raises(errors.AlreadyExists):
        client(scripted).create_user("ada", NEW_PASSWORD)
    assert len(scripted.asked) == 1


def test_a_deletion_whose_answer_was_lost_counts_when_the_user_is_gone(scripted: Scripted) -> None:
    scripted.answers = [Answer(drop=True), GONE]
    client(scripted).delete_user("ada")
    scripted.answers = [GONE]
    with pytest.raises(errors.NotFound):
        client(scripted).delete_user("ada")


def test_ones_own_password_change_whose_answer_was_lost_counts_when_it_logs_in(scripted: Scripted) -> None:
    scripted.answers = [Answer(504), Answer(401), Answer(body=ADA)]
    client(scripted).set_password("admin", NEW_PASSWORD)
    assert scripted.asked[-1][2] == f"admin:{NEW_PASSWORD}"


def test_nothing_listens(scripted: Scripted) -> None:
    nowhere = MlflowAuthClient("http://127.0.0.1:9", "admin", PASSWORD, patience=Patience(tries=2))
    with pytest.raises(
        errors.Transient, match=r"could not read user 'ada': http://127.0.0.1:9 does not answer"
    ) as gone:
        nowhere.get_user("ada")
    assert not gone.value.repeated
    with pytest.raises(errors.Transient, match="was not ready within 0 s: nothing answers"):
        nowhere.wait_until_ready(0)


def test_is_ready_when_health_says_so(scripted: Scripted) -> None:
    scripted.answers = [Answer(503), Answer(500), Answer(200, "OK")]
    client(scripted).wait_until_ready(60)
    assert [path for _, path, _ in scripted.asked] == ["/health"] * 3
    assert {login for _, _, login in scripted.asked} == {""}
    scripted.answers = [Answer(500)]
    with pytest.raises(errors.Transient, match="it answers 500"):
        client(scripted).wait_until_ready(0)


def test_hands_its_credentials_to_no_other_address(
    scripted: Scripted, monkeypatch: pytest.MonkeyPatch
) -> None:
    scripted.answers = [Answer(302, headers={"Location": "http://127.0.0.1:9/"})]
    with pytest.raises(errors.Rejected, match="redirects"):
        client(scripted).get_user("ada")
    # Nor to a proxy, for a server on this machine.
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    monkeypatch.delenv("no_proxy", raising=False)
    monkeypatch.delenv("NO_PROXY", raising=False)
    scripted.answers = [Answer(body=ADA)]
    assert client(scripted).get_user("ada")


@pytest.mark.parametrize(
    ("answer", "kind"),
    [
        (Answer(401, NEW_PASSWORD), errors.WrongCredentials),
        (Answer(403, NEW_PASSWORD), errors.Forbidden),
        (EXISTS, errors.AlreadyExists),
        (Answer(404, {"error_code": "RESOURCE_DOES_NOT_EXIST", "message": NEW_PASSWORD}), errors.NotFound),
        (Answer(404, NEW_PASSWORD), errors.RouteMissing),
        (Answer(400, {"error_code": NEW_PASSWORD, "message": NEW_PASSWORD}), errors.Rejected),
        (Answer(500, {"error_code": "INTERNAL_ERROR", "message": NEW_PASSWORD}), errors.MlflowAuthError),
        (Answer(503, NEW_PASSWORD), errors.Transient),
    ],
)
def test_errors_have_types_and_tell_no_secret(
    scripted: Scripted, answer: Answer, kind: type[Exception]
) -> None:
    scripted.answers = [answer]
    with pytest.raises(kind) as caught:
        client(scripted, tries=1).create_user("ada", NEW_PASSWORD)
    assert type(caught.value) is kind
    told = "".join(traceback.format_exception(caught.value)) + repr(client(scripted))
    assert "could not create user 'ada'" in told
    assert NEW_PASSWORD not in told
    assert PASSWORD not in told


@pytest.mark.parametrize(
    "url", ["http://admin:s3cret@host", "http://:s3cret@host", "ftp://host", "host:5000", "http://h:x"]
)
def test_refuses_urls_it_should_not_use(url: str) -> None:
    with pytest.raises(ValueError, match="write http://HOST:PORT") as refused:
        checked_url(url)
    assert "s3cret" not in str(refused.value)


@pytest.mark.parametrize(
    ("password", "problem"),
    [
        ("twelve-chars", None),
        ("1" * 12, None),
        ("with 100% of !\"#'", None),
        ("elevenchars", "shorter than 12"),
        ("password1234", "publishes"),
        ("a" * 201, "at most 200"),
        ("päßwörter-here", "ASCII"),
        ("ends with space ", "ASCII"),
        ("has\na line break", "ASCII"),
    ],
)
def test_passwords(password: str, problem: str | None) -> None:
    told = password_problem(password)
    assert (told is None) if problem is None else (told is not None and problem in told)
