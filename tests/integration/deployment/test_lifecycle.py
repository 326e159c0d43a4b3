"""What survives: data and credentials over a destroy, a run-once container's failure, a new password of a store."""

from __future__ import annotations

from typing import Any

import requests

from tests.deployment import Deployment
from tests.engine import docker


def _experiment(outputs: dict[str, Any], *, create: bool = False) -> requests.Response:
    url, auth = outputs["mlflowUrl"], ("admin", outputs["mlflowAdminPassword"])
    if create:
        body = {"name": "kept"}
        requests.post(
            f"{url}/api/2.0/mlflow/experiments/create", json=body, auth=auth, timeout=30
        ).raise_for_status()
    return requests.get(
        f"{url}/api/2.0/mlflow/experiments/get-by-name?experiment_name=kept", auth=auth, timeout=30
    )


def test_a_run_once_container_that_fails_fails_the_deployment(
    empty: Deployment, images: dict[str, str]
) -> None:
    empty.configure(dataRetention="keep", mlflowUsers=[{"name": "carol"}], images=None)
    # An image without the command that makes buckets.
    empty.configure(images={**images, "mc": images["python"]})
    done = empty.up()
    assert done.code != 0
    assert f"{empty.container('mlflow-create-bucket')} ended with exit code 127" in done.text
    assert "fix:" in done.text
    assert empty.container("mlflow-server") not in empty.containers()


def test_the_next_up_goes_on_from_there(empty: Deployment, images: dict[str, str]) -> None:
    empty.configure(images=None)
    empty.configure(images=images)
    empty.up("--refresh").ok()
    assert _experiment(empty.outputs(), create=True).ok


def test_kept_data_and_its_credentials_come_back(empty: Deployment) -> None:
    before = empty.outputs()
    empty.pulumi("destroy", "--yes", "--skip-preview", "--exclude-protected").ok()
    assert empty.containers() == {}
    assert sorted(empty.left_over()) == sorted(before["volumes"].values())
    empty.up().ok()
    after = empty.outputs()
    assert after["mlflowAdminPassword"] == before["mlflowAdminPassword"]
    assert after["mlflowUserPasswords"] == before["mlflowUserPasswords"]
    assert _experiment(after).ok


def test_a_store_takes_a_new_password_and_keeps_its_data(empty: Deployment) -> None:
    empty.configure_secret("mlflowPostgresPassword", "AnotherPassword123")
    empty.configure_secret("mlflowMinioRootPassword", "AnotherPassword456")
    empty.up().ok()
    assert _experiment(empty.outputs()).ok
    assert "AnotherPassword123" not in docker("inspect", *empty.containers()).stdout


def test_destroy_with_its_data_leaves_nothing(empty: Deployment) -> None:
    empty.pulumi("state", "unprotect", "--all", "--yes").ok()
    empty.pulumi("destroy", "--yes", "--skip-preview").ok()
    assert empty.left_over() == []
