"""All twelve containers, from nothing to nothing, in the order of this file: one deployment, looked at from all sides."""

from __future__ import annotations

import base64
import json
import subprocess
import sys
from itertools import chain
from pathlib import Path

import pytest
import requests

from scripts.machine.paths import ROOT
from tests.conditions import free_port, until
from tests.deployment import RUN_ONCE, RUNNING, SERVICES, Deployment, Done, run_client
from tests.engine import docker, relabelled, tag_of
from tests.faults.writers import TraceWriter

ALL = [*SERVICES["mlflow"], *SERVICES["langfuse"]]
TEAM = [
    {"name": "alice", "experiments": {"churn": "EDIT"}},
    {"name": "bob", "experiments": {"churn": "READ"}, "models": {"churn": "READ"}},
]
READ_BACK = """
import json, mlflow
client = mlflow.MlflowClient()
experiment = client.get_experiment_by_name("example-iris")
(run,) = client.search_runs([experiment.experiment_id])
text = mlflow.artifacts.load_text(f"{run.info.artifact_uri}/classification_report.txt")
version = client.get_model_version("example-iris-classifier", "1")
print(json.dumps({"metrics": run.data.metrics, "report": text, "run": run.info.run_id, "model_run": version.run_id}))
"""


@pytest.fixture(scope="module")
def up(empty: Deployment) -> Done:
    empty.configure(langfuseEnabled=True, mlflowUsers=TEAM)
    empty.configure_secret("mlflowAdminPassword", "a-given-password-1")
    return empty.up().ok()


@pytest.fixture
def stack(empty: Deployment, up: Done) -> Deployment:
    return empty


def _variables(stack: Deployment) -> dict[str, str]:
    lines = stack.outputs()["clientEnv"].splitlines()
    return {name: value.strip("'") for name, _, value in (line.partition("=") for line in lines)}


def _validate(stack: Deployment, tmp_path: Path) -> tuple[int, dict[str, dict[str, str]]]:
    outputs = tmp_path / "outputs.json"
    outputs.write_text(json.dumps(stack.outputs()))
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "scripts.validate_services",
            "--outputs",
            str(outputs),
            "--json",
            "--patience",
            "30",
        ],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode in (0, 1), done.stderr
    return done.returncode, {item["service"]: item for item in json.loads(done.stdout)["services"]}


def test_every_container_is_there_healthy_and_hardened(stack: Deployment, up: Done) -> None:
    assert "MLflow 3.4.0 has known vulnerabilities" in up.text
    assert set(stack.containers()) == {stack.container(service) for service in ALL}
    for service in ALL:
        found = stack.inspect(service)
        state, host = found["State"], found["HostConfig"]
        if service in RUN_ONCE:
            assert (state["Status"], state["ExitCode"]) == ("exited", 0), service
        else:
            assert stack.healthy(service), service
            assert host["RestartPolicy"]["Name"] == "unless-stopped", service
        assert host["CapDrop"] == ["ALL"], service
        assert host["SecurityOpt"] == ["no-new-privileges:true"], service
        assert not host["Privileged"], service
        assert host["Memory"] > 0, service
        assert host["LogConfig"]["Config"] == {"max-size": "10m", "max-file": "3"}, service


def test_only_what_people_reach_is_published_and_on_loopback(stack: Deployment) -> None:
    published = {
        service: bindings
        for service in ALL
        if (bindings := stack.inspect(service)["HostConfig"]["PortBindings"])
    }
    assert set(published) == {"mlflow-server", "langfuse-web", "langfuse-minio"}
    for bindings in published.values():
        assert [binding["HostIp"] for binding in chain(*bindings.values())] == ["127.0.0.1"]


def test_no_secret_is_in_output_state_inspect_logs_or_the_process_list(stack: Deployment, up: Done) -> None:
    values = stack.secret_values()
    assert len(values) > 15
    places = {
        "the output of up": up.text,
        "the state": stack.export(),
        "the settings": stack.settings.read_text(),
        "the state's files": "".join(
            file.read_text() for file in (stack.folder / ".pulumi-state").rglob("*.json")
        ),
        "a preview": stack.pulumi("preview", "--diff").ok().text,
        "the process list": subprocess.run(["ps", "axww"], capture_output=True, text=True, check=True).stdout,
    }
    for service in ALL:
        name = stack.container(service)
        logs = docker("logs", name)
        places |= {
            f"inspect of {service}": docker("inspect", name).stdout,
            f"logs of {service}": logs.stdout + logs.stderr,
        }
    found = [(place, value[:3]) for place, text in places.items() for value in values if value in text]
    assert not found


def test_a_second_up_changes_nothing_and_a_refresh_finds_nothing(stack: Deployment) -> None:
    before = stack.containers()
    again = stack.up("--refresh", "--expect-no-changes").ok()
    assert "unchanged" in again.text
    assert stack.containers() == before
    stack.pulumi("refresh", "--yes", "--skip-preview", "--expect-no-changes").ok()
    stack.pulumi("preview", "--expect-no-changes").ok()


def test_validation_finds_everything_working(stack: Deployment, tmp_path: Path) -> None:
    code, services = _validate(stack, tmp_path)
    assert code == 0, services
    assert set(ALL) <= set(services)
    assert "CONTRACT DOUBLE" in json.dumps(services["langfuse-web"])


def test_examples_run_from_the_client_environment_alone(
    stack: Deployment, client_python: Path, tmp_path: Path
) -> None:
    variables = _variables(stack)
    for example in ("train_sklearn.py", "dual_logging.py", "prompt_management.py"):
        run_client(client_python, str(ROOT / "examples" / example), variables=variables, cwd=tmp_path)
    # Another client reads what the first one wrote, as another user.
    other = {**variables, "MLFLOW_TRACKING_USERNAME": "alice"}
    other["MLFLOW_TRACKING_PASSWORD"] = stack.outputs()["mlflowUserPasswords"]["alice"]
    found = json.loads(run_client(client_python, "-c", READ_BACK, variables=other, cwd=tmp_path))
    assert found["metrics"]["accuracy"] > 0.8
    assert "precision" in found["report"]
    assert found["model_run"] == found["run"]
    # MinIO keeps an object as a folder of its name.
    stored = docker("exec", stack.container("mlflow-minio"), "ls", "-R", "/data/mlflow").stdout
    assert f"{found['run']}/artifacts/classification_report.txt:\nxl.meta" in stored


def test_a_browser_shows_a_declared_user_the_run_and_a_stranger_nothing(
    stack: Deployment, debian: str, client_python: Path, tmp_path: Path
) -> None:
    image, name, port = "mlops-stack-test/chromium:1", f"{stack.prefix}browser", free_port()
    base = f"BASE_IMAGE={debian}"
    docker("build", "--quiet", "--build-arg", base, "--tag", image, str(ROOT / "tests" / "browser"))
    docker("run", "--detach", "--network=host", "--name", name, image, f"--remote-debugging-port={port}")
    try:
        until(lambda: "DevTools listening" in docker("logs", name).stderr, "the browser")
        variables = {
            **_variables(stack),
            "MLFLOW_TRACKING_USERNAME": "alice",
            "MLFLOW_TRACKING_PASSWORD": stack.outputs()["mlflowUserPasswords"]["alice"],
        }
        script = str(ROOT / "tests" / "browser" / "browse.py")
        seen = run_client(client_python, script, str(port), str(tmp_path), variables=variables, cwd=tmp_path)
    finally:
        docker("rm", "--force", name)
    assert seen.splitlines() == ["refused: []", "stranger: 401"]
    assert (tmp_path / "mlflow-artifact.png").stat().st_size > 10_000


def test_the_team_has_what_was_declared_and_strangers_have_nothing(stack: Deployment) -> None:
    outputs = stack.outputs()
    url, passwords = outputs["mlflowUrl"], outputs["mlflowUserPasswords"]

    def get(path: str, auth: tuple[str, str] | None, **parameters: str) -> requests.Response:
        return requests.get(f"{url}/api/2.0/mlflow/{path}", auth=auth, params=parameters, timeout=30)

    experiment = get("experiments/get-by-name", ("alice", passwords["alice"]), experiment_name="churn").json()
    experiment_id = experiment["experiment"]["experiment_id"]

    def create_run(auth: tuple[str, str] | None) -> int:
        body = {"experiment_id": experiment_id, "start_time": 1}
        return requests.post(
            f"{url}/api/2.0/mlflow/runs/create", json=body, auth=auth, timeout=30
        ).status_code

    assert create_run(("alice", passwords["alice"])) == 200
    assert create_run(("bob", passwords["bob"])) == 403
    assert create_run(("admin", "a-given-password-1")) == 200
    for stranger in (None, ("admin", "password1234"), ("alice", passwords["bob"])):
        assert create_run(stranger) == 401
    assert requests.post(f"{url}/v1/traces", data=b"", timeout=30).status_code == 401
    assert requests.get(url, headers={"Host": "evil.example"}, timeout=30).status_code in (400, 403)


def test_what_would_leave_data_of_no_use_is_refused(stack: Deployment) -> None:
    before = stack.containers()
    with stack.changed(mlflowBucket="another"):
        stack.configure_secret("langfuseSalt", base64.b64encode(b"s" * 32).decode())
        stack.configure_secret("langfuseEncryptionKey", "ab" * 32)
        refused = stack.up()
    assert refused.code != 0
    for key in ("mlflowBucket", "langfuseSalt", "langfuseEncryptionKey"):
        assert f"mlops-stack:{key}: " in refused.text
    assert stack.containers() == before


def test_drift_is_found_and_repaired_by_one_command(stack: Deployment) -> None:
    outputs = stack.outputs()
    url, admin = outputs["mlflowUrl"], ("admin", outputs["mlflowAdminPassword"])
    bob = ("bob", outputs["mlflowUserPasswords"]["bob"])
    before = stack.containers()
    search = f"{url}/api/2.0/mlflow/experiments/search?max_results=1"
    # So that all processes of the server remember him; what they remember is no reason not to see the drift.
    assert all(requests.get(search, auth=bob, timeout=30).ok for _ in range(12))
    docker("rm", "--force", stack.container("langfuse-redis"))
    docker("stop", stack.container("langfuse-worker"))
    assert (
        requests.delete(
            f"{url}/api/2.0/mlflow/users/delete", json={"username": "bob"}, auth=admin, timeout=30
        ).status_code
        == 200
        # 3.4.0 cannot delete a user who holds permissions, so the password is what drifts.
        or requests.patch(
            f"{url}/api/2.0/mlflow/users/update-password",
            json={"username": "bob", "password": "changed-by-hand"},
            auth=admin,
            timeout=30,
        ).ok
    )
    assert not any(requests.get(search, auth=bob, timeout=30).ok for _ in range(6))
    stack.up("--refresh").ok()
    after = stack.containers()
    changed = {name for name in before if before[name] != after.get(name)}
    assert stack.container("langfuse-redis") in changed
    assert changed <= {stack.container("langfuse-redis"), stack.container("langfuse-worker")}
    for service in ("langfuse-redis", "langfuse-worker"):
        assert stack.healthy(service)
    assert requests.get(search, auth=bob, timeout=30).ok


def test_a_store_that_stops_is_named_by_validation(stack: Deployment, tmp_path: Path) -> None:
    name = stack.container("langfuse-clickhouse")
    docker("stop", name)
    try:
        code, services = _validate(stack, tmp_path)
    finally:
        docker("start", name)
    assert code == 1
    assert services["langfuse-clickhouse"]["status"] == "failed"
    assert services["langfuse-redis"]["status"] == "ok"
    until(lambda: stack.healthy("langfuse-clickhouse"), "healthy again")


def test_a_new_admin_password_and_release_take_over_what_is_there(stack: Deployment) -> None:
    outputs = stack.outputs()
    stack.configure_secret("mlflowAdminPassword", "another-password-2")
    stack.configure(mlflowVersion="3.17.2")
    stack.up().ok()
    url = f"{outputs['mlflowUrl']}/api/2.0/mlflow/experiments/get-by-name?experiment_name=churn"
    assert requests.get(url, auth=("admin", "another-password-2"), timeout=30).ok
    assert requests.get(url, auth=("admin", "a-given-password-1"), timeout=30).status_code == 401
    assert requests.get(url, auth=("bob", outputs["mlflowUserPasswords"]["bob"]), timeout=30).ok
    assert requests.get(url, timeout=30).status_code == 401
    stack.up("--refresh", "--expect-no-changes").ok()


def test_every_image_is_replaced_then_all_restart_and_the_data_is_there(
    stack: Deployment, images: dict[str, str]
) -> None:
    before = {service: stack.inspect(service) for service in ALL}
    outputs = stack.outputs()
    langfuse = TraceWriter.of(stack)
    langfuse.write(1)
    made = {"mlflow": before["mlflow-server"]["Config"]["Image"]}
    made |= {name: image for name, image in images.items() if name != "python"}
    changed = {
        name: relabelled(image, f"{stack.prefix}images/{tag_of(image).rpartition('/')[2]}")
        for name, image in made.items()
    }
    stack.configure(images=None)
    stack.configure(images={**images, **changed})
    stack.up().ok()
    for service in ALL:
        assert stack.inspect(service)["Image"] != before[service]["Image"], service
    running = [*RUNNING["mlflow"], *RUNNING["langfuse"]]
    docker("restart", *(stack.container(service) for service in running))
    until(lambda: stack.healthy(*running), "all healthy", seconds=120)
    url = f"{outputs['mlflowUrl']}/api/2.0/mlflow/experiments/get-by-name?experiment_name=churn"
    assert requests.get(url, auth=("bob", outputs["mlflowUserPasswords"]["bob"]), timeout=30).ok
    assert langfuse.acknowledged
    assert langfuse.lost() == []
    stack.up("--refresh", "--expect-no-changes").ok()


def test_destroy_leaves_nothing_of_ours_and_all_of_others(stack: Deployment) -> None:
    foreign = f"x{stack.prefix}foreign"
    docker("volume", "create", foreign)
    try:
        stack.pulumi("destroy", "--yes", "--skip-preview").ok()
        assert stack.left_over() == []
        assert docker("volume", "ls", "--quiet", "--filter", f"name={foreign}").stdout.split() == [foreign]
    finally:
        docker("volume", "rm", foreign)
