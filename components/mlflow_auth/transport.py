"""HTTP to one MLflow server: time-outs, bounded retries, and answers turned into typed errors."""

from __future__ import annotations

import os
import random
import re
import time
from dataclasses import dataclass
from ipaddress import ip_address
from typing import Any
from urllib.parse import urlsplit

import requests
from requests.adapters import HTTPAdapter
from requests.auth import HTTPBasicAuth

from components.mlflow_auth import errors

_BUSY = frozenset({429, 502, 503, 504})
_FIX_UNREACHABLE = "check that the server runs and that the URL is right"


@dataclass(frozen=True, kw_only=True)
class Patience:
    """How long to wait: for one answer (connect and read, in seconds), and over how many tries with growing pauses."""

    connect: float = 5.0
    read: float = 60.0
    tries: int = 5
    first_pause: float = 0.25
    longest_pause: float = 10.0

    def pause(self, attempt: int, retry_after: str | None) -> float:
        """Seconds before the next try: what the server asks for, within bounds, else doubling with jitter."""
        if retry_after is not None and re.fullmatch(r"[0-9]{1,6}", retry_after.strip()):
            return min(float(retry_after), self.longest_pause)
        return min(self.first_pause * 2**attempt, self.longest_pause) * random.uniform(0.5, 1.0)


def checked_url(url: str) -> str:
    """The server's address without a closing slash. The message repeats no part of a URL that carries credentials."""
    try:
        parts = urlsplit(url)
        _ = parts.port
    except ValueError:
        raise ValueError("the MLflow URL is not a URL; write http://HOST:PORT") from None
    if parts.username is not None or parts.password is not None:
        raise ValueError(
            "the MLflow URL carries credentials; write http://HOST:PORT and give user and password apart"
        )
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ValueError(f"the MLflow URL {url!r} is not an http(s) URL; write http://HOST:PORT")
    try:
        requests.Request("GET", url).prepare()
    except ValueError:
        raise ValueError(f"no request can go to the MLflow URL {url!r}; write http://HOST:PORT") from None
    return url.rstrip("/")


def _is_loopback(url: str) -> bool:
    host = urlsplit(url).hostname or ""
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def session_for(url: str) -> requests.Session:
    """A session for requests to one server. A proxy from the environment would be handed the credentials of one on this machine."""
    session = requests.Session()
    if _is_loopback(url):
        session.trust_env = False
        session.verify = os.environ.get("REQUESTS_CA_BUNDLE") or True
    return session


def _never_sent(error: requests.RequestException) -> bool:
    return isinstance(error, requests.ConnectTimeout) or "NewConnectionError" in repr(error)


class Transport:
    """Sends JSON requests under one user's name. Safe to share between threads; it keeps connections open."""

    def __init__(self, url: str, username: str, password: str, patience: Patience | None = None) -> None:
        self.url = checked_url(url)
        self.username = username
        self.patience = patience or Patience()
        self._auth = _basic(username, password)
        self._session = session_for(self.url)
        self._session.mount("http://", HTTPAdapter(pool_maxsize=32))
        self._session.mount("https://", HTTPAdapter(pool_maxsize=32))

    def __repr__(self) -> str:
        return f"Transport({self.url!r}, {self.username!r})"

    def call(
        self,
        what: str,
        method: str,
        path: str,
        *,
        query: dict[str, str] | None = None,
        body: dict[str, Any] | None = None,
        login: tuple[str, str] | None = None,
        patience: Patience | None = None,
    ) -> Any:
        """Send a request and return its JSON (or text). `what` completes "could not ..." in errors.

        A request whose answer was lost is sent again: callers see by the error's `repeated` that a conflict may be the
        work of the lost one. `login` sends it as another user.
        """
        patience = patience or self.patience
        auth = _basic(*login) if login else self._auth
        repeated = False
        for attempt in range(patience.tries):
            last = attempt == patience.tries - 1
            retry_after = None
            try:
                response = self._session.request(
                    method,
                    self.url + path,
                    params=query,
                    json=body,
                    auth=auth,
                    timeout=(patience.connect, patience.read),
                    allow_redirects=False,
                )
            except (requests.ConnectionError, requests.Timeout) as error:
                repeated = repeated or not _never_sent(error)
                if last:
                    raise errors.Transient(
                        f"could not {what}: {self.url} does not answer ({type(error).__name__}, {patience.tries} tries); "
                        + _FIX_UNREACHABLE,
                        repeated=repeated,
                    ) from None
            except requests.RequestException as error:
                raise errors.MlflowAuthError(
                    f"could not {what}: {type(error).__name__} from {self.url}"
                ) from None
            else:
                if response.status_code not in _BUSY:
                    return self._answer(what, response, repeated)
                repeated = repeated or response.status_code in (502, 504)
                retry_after = response.headers.get("Retry-After")
                if last:
                    raise errors.Transient(
                        f"could not {what}: {self.url} answered {response.status_code} to {patience.tries} tries; "
                        "try again later",
                        status=response.status_code,
                        repeated=repeated,
                    )
            time.sleep(patience.pause(attempt, retry_after))
        raise AssertionError("unreachable: the last try returns or raises")

    def health(self, timeout: float) -> int | None:
        """The status of one unauthenticated request to /health, None when nothing answers."""
        try:
            return self._session.get(self.url + "/health", timeout=timeout, allow_redirects=False).status_code
        except requests.RequestException:
            return None

    def _answer(self, what: str, response: requests.Response, repeated: bool) -> Any:
        status = response.status_code
        try:
            content = response.json()
        except ValueError:
            content = response.text
        if status < 300:
            return content
        code = content.get("error_code", "") if isinstance(content, dict) else ""
        code = code if isinstance(code, str) and re.fullmatch(r"[A-Z_]{1,64}", code) else ""
        raise _error(what, self.url, status, code, repeated)


def _basic(username: str, password: str) -> HTTPBasicAuth:
    # As bytes: requests would encode text as Latin-1, MLflow decodes UTF-8.
    return HTTPBasicAuth(username.encode(), password.encode())


def _error(what: str, url: str, status: int, code: str, repeated: bool) -> errors.MlflowAuthError:
    kind: type[errors.MlflowAuthError]
    if status == 401:
        kind, reason = errors.WrongCredentials, "MLflow does not take the user name and password"
    elif status == 403:
        kind, reason = (
            errors.Forbidden,
            "MLflow forbids it; use an administrator's account, and a host name that the server is allowed to answer to",
        )
    elif code == "RESOURCE_ALREADY_EXISTS":
        kind, reason = errors.AlreadyExists, "it exists already"
    elif status == 404 and code:
        kind, reason = errors.NotFound, "MLflow does not have it"
    elif status in (404, 405):
        kind, reason = (
            errors.RouteMissing,
            f"{url} has no such route; check that the URL is MLflow's, served with authentication",
        )
    elif 300 <= status < 400:
        kind, reason = errors.Rejected, f"{url} redirects; give the final URL"
    elif status < 500:
        kind, reason = errors.Rejected, "MLflow refuses the request"
    else:
        kind, reason = errors.MlflowAuthError, "MLflow failed; its log says why"
    return kind(
        f"could not {what}: {reason} ({status}{' ' + code if code else ''})",
        status=status,
        code=code,
        repeated=repeated,
    )
