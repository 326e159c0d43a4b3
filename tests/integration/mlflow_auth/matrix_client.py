"""Run by the matrix test with the real mlflow client, in the server's container: who may do what.

Standard input: {"users": {role: [name, password]}, "things": {role: {"experiment": id, "run": id, "model": name}}}
Standard output, last line: {role: {action: "yes" | "no" | "ERROR"}}.
"""

# mypy: ignore-errors
import json
import os
import sys

import mlflow
from mlflow import MlflowClient
from mlflow.exceptions import MlflowException
from mlflow.utils.rest_utils import http_request

URL = "http://127.0.0.1:5000"
os.environ["MLFLOW_HTTP_REQUEST_MAX_RETRIES"] = "0"


def answer(action):
    try:
        return "yes" if action() is not False else "no"
    except MlflowException as error:
        text = str(error)
        denied = "Permission denied" in text or "PERMISSION_DENIED" in text or "403" in text
        return "no" if denied else f"ERROR {error.error_code}: {text[:200]}"


def rest(client, path, method, body):
    from mlflow.utils.credentials import get_default_host_creds

    sent = {"params": body} if method == "GET" else {"json": body}
    status = http_request(get_default_host_creds(client.tracking_uri), path, method, **sent).status_code
    assert status in (200, 403), status
    return status == 200


def register(client, model, run):
    client.create_model_version(model, f"{client.get_run(run).info.artifact_uri}/note.txt", run_id=run)


def actions(client, version, role, mine):
    exp, run, model = mine["experiment"], mine["run"], mine["model"]

    def log():
        created = client.create_run(exp)
        client.log_metric(created.info.run_id, "accuracy", 0.9)
        client.log_text(created.info.run_id, "hello", "note.txt")

    def grant():
        level = {"username": mine["other"], "permission": "READ"}
        if version >= (3, 13):
            path, names = (
                "/api/3.0/mlflow/users/permissions/grant",
                {"resource_type": "experiment", "resource_id": exp},
            )
        else:
            path, names = "/api/2.0/mlflow/experiments/permissions/create", {"experiment_id": exp}
        return rest(client, path, "POST", {**level, **names})

    def delete_model():
        try:
            client.delete_registered_model(model)
        except MlflowException as error:
            # 3.4.0 deletes the model, and then fails where the one who deletes holds no permission of his own on it.
            if error.error_code != "RESOURCE_DOES_NOT_EXIST":
                raise
            return model not in [found.name for found in client.search_registered_models()]

    def list_users():
        # 3.4.0 has no route for it: every user may read his own account only.
        if version >= (3, 10):
            return rest(client, "/api/2.0/mlflow/users/list", "GET", {})
        return rest(client, "/api/2.0/mlflow/users/get", "GET", {"username": mine["other"]})

    users = "/api/2.0/mlflow/users/"
    return {
        "read experiment": lambda: client.get_experiment(exp),
        "find experiment": lambda: exp in [found.experiment_id for found in client.search_experiments()],
        "read run": lambda: client.get_run(run),
        "read artifact": lambda: mlflow.artifacts.load_text(f"runs:/{run}/note.txt"),
        "log run": log,
        "rename experiment": lambda: client.rename_experiment(exp, f"{mine['tag']} renamed by {role}"),
        "read model": lambda: client.get_registered_model(model),
        "register version": lambda: register(client, model, run),
        "stage version": lambda: client.transition_model_version_stage(model, "1", "Staging"),
        "set alias": lambda: client.set_registered_model_alias(model, "champion", "1"),
        "grant": grant,
        "list users": list_users,
        "create user": lambda: rest(
            client,
            users + "create",
            "POST",
            {"username": f"{mine['tag']}-new-by-{role.lower()}", "password": "long-enough-password"},
        ),
        "promote oneself": lambda: rest(
            client, users + "update-admin", "PATCH", {"username": mine["name"], "is_admin": role == "admin"}
        ),
        "create experiment": lambda: client.create_experiment(f"{mine['tag']} new by {role}"),
        "delete run": lambda: client.delete_run(run),
        "delete model version": lambda: client.delete_model_version(model, "1"),
        "delete model": delete_model,
        "delete experiment": lambda: client.delete_experiment(exp),
    }


def log_in(name, password):
    os.environ["MLFLOW_TRACKING_USERNAME"], os.environ["MLFLOW_TRACKING_PASSWORD"] = name, password


def main():
    given = json.load(sys.stdin)
    mlflow.set_tracking_uri(URL)
    client = MlflowClient(URL)
    version = tuple(int(part) for part in mlflow.__version__.split(".")[:2])
    if "prepare" in given:
        log_in(*given["users"]["owner"])
        things = {}
        for role in given["prepare"]:
            exp = client.create_experiment(f"{given['tag']} of {role}")
            run = client.create_run(exp).info.run_id
            client.log_text(run, "hello", "note.txt")
            client.create_registered_model(f"{given['tag']}-model-{role}")
            register(client, f"{given['tag']}-model-{role}", run)
            things[role] = {"experiment": exp, "run": run, "model": f"{given['tag']}-model-{role}"}
        print(json.dumps(things))
        return
    table = {}
    for role, mine in given["things"].items():
        name, password = given["users"][role]
        log_in(name, password)
        table[role] = {
            action: answer(do)
            for action, do in actions(
                client, version, role, {**mine, "name": name, **{k: given[k] for k in ("other", "tag")}}
            ).items()
        }
    print(json.dumps(table))


main()
