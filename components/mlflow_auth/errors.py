"""What can go wrong between this project and MLflow's authentication API.

Messages say what was tried, what MLflow answered and what to do. They never hold a response body (MLflow's carry
SQL with password hashes), a password, or a URL with credentials.
"""

from __future__ import annotations


class MlflowAuthError(Exception):
    """Base of all errors here. `repeated`: an earlier try of the same request may have been carried out already."""

    def __init__(
        self, message: str, *, status: int | None = None, code: str = "", repeated: bool = False
    ) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.repeated = repeated


class NotFound(MlflowAuthError):
    """The user, experiment, model or permission does not exist."""


class RouteMissing(MlflowAuthError):
    """The server has no such route: another version of MLflow than expected, or not MLflow at all."""


class AlreadyExists(MlflowAuthError):
    """What was to be created exists already."""


class WrongCredentials(MlflowAuthError):
    """The server does not take the user name and password it was given."""


class Forbidden(MlflowAuthError):
    """The user may not do this, or the server does not answer to the host name in the URL."""


class Rejected(MlflowAuthError):
    """The server took the request for invalid."""


class Transient(MlflowAuthError):
    """The server was not reachable, or too busy, for longer than the client waits."""


class Unsupported(MlflowAuthError):
    """This version of MLflow cannot do what was asked."""


class DefaultPassword(MlflowAuthError):
    """One of the passwords that MLflow's documentation publishes logs in."""
