"""What stands between the network and MLflow: a gate, a cache of verified credentials and a limit on guesses.

MLflow's own configuration names `mlflow_stack_auth:authenticate` as its `authorization_function`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from werkzeug.datastructures import Authorization
    from werkzeug.wrappers import Response


def authenticate() -> Authorization | Response:
    """MLflow's `authorization_function`: who sends the current Flask request, or the answer that refuses it."""
    from mlflow_stack_auth.login import current_user

    return current_user()
