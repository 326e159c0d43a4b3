"""Which Pulumi, which engine and which environment are taken, and what is refused."""

from __future__ import annotations

import json
import os
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from airgap.toolchain import STAMP, home
from airgap.toolchain.parts import LANGUAGE_PYTHON, PLUGINS, PULUMI
from scripts.bootstrap import engine, tools, venv
from scripts.machine import debian
from scripts.machine.paths import cache_dir
from scripts.machine.problems import Problem
from tests.unit.bootstrap.conftest import Program


@pytest.fixture
def site(monkeypatch: pytest.MonkeyPatch) -> list[bool]:
    """Whether the download site answers."""
    answers = [False]
    monkeypatch.setattr(tools, "_site_answers", lambda: answers[0])
    return answers


@pytest.fixture
def installed(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What was installed or built, in place of doing it."""
    done: list[str] = []

    def build(folder: Path, say: object) -> Path:
        done.append("built")
        return folder / "bin"

    def official(python: Path, unfit: str, say: object) -> tools.Tools:
        done.append("official")
        return tools.Tools(Path("/official/bin"), {}, unfit)

    monkeypatch.setattr(tools.toolchain, "install", build)
    monkeypatch.setattr(tools, "_install_official", official)
    return done


def on_path(pulumi: Program, version: str = "v3.272.0", *, host: bool = True) -> None:
    pulumi.answers("version", version)
    if host:
        beside = pulumi.path.with_name("pulumi-language-python")
        beside.write_text("")
        beside.chmod(0o755)


def test_a_pulumi_on_path_wins(
    pulumi: Program, site: list[bool], installed: list[str], said: list[str]
) -> None:
    on_path(pulumi)
    site[0] = True
    assert tools.ensure(Path("python"), said.append).pulumi == str(pulumi.path)
    assert installed == []


@pytest.mark.parametrize(
    ("version", "host", "why"),
    [
        ("v3.100.0", True, "3.200 or newer"),
        ("v4.0.1", True, "below 4"),
        ("v3.272.0", False, "no pulumi-language-python"),
    ],
)
@pytest.mark.parametrize("answers", [True, False])
def test_one_that_does_not_serve_is_replaced(
    pulumi: Program,
    site: list[bool],
    installed: list[str],
    said: list[str],
    version: str,
    host: bool,
    why: str,
    answers: bool,
) -> None:
    on_path(pulumi, version, host=host)
    site[0] = answers
    assert why in tools.ensure(Path("python"), said.append).why
    assert installed == ["official" if answers else "built"]


def test_one_without_plugins_is_of_no_use_where_they_cannot_be_had(
    pulumi: Program, site: list[bool], installed: list[str], said: list[str]
) -> None:
    on_path(pulumi)
    assert tools.ensure(Path("python"), said.append).variables["PULUMI_HOME"] == str(
        cache_dir() / "airgap" / "pulumi"
    )
    assert installed == ["built"]


def test_the_switch_is_obeyed(
    bin_dir: Path, site: list[bool], installed: list[str], said: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(tools.SWITCH, "path")
    with pytest.raises(Problem, match="no pulumi on PATH"):
        tools.ensure(Path("python"), said.append)
    monkeypatch.setenv(tools.SWITCH, "magic")
    with pytest.raises(Problem, match="magic is no way"):
        tools.ensure(Path("python"), said.append)
    site[0] = True
    monkeypatch.setenv(tools.SWITCH, "build")
    tools.ensure(Path("python"), said.append)
    assert installed == ["built"]


def test_find_takes_what_was_built_and_never_half_of_it(pulumi: Program) -> None:
    on_path(pulumi)  # of no use: without plugins
    built = cache_dir() / "airgap"
    (built / "bin").mkdir(parents=True)
    (built / "bin" / "pulumi").write_text("half of it")
    assert tools.find().folder == pulumi.path.parent
    (built / STAMP).write_text("{}")
    assert tools.find().folder == built / "bin"


def test_a_complete_folder_needs_no_go(
    tmp_path: Path, bin_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("airgap.toolchain.builder.USUAL_GO", tmp_path / "nowhere")
    files = [tmp_path / "bin" / part.binary for part in (PULUMI, LANGUAGE_PYTHON)]
    files += [home._plugin_path(tmp_path, part.name, part.version, part.binary) for part in PLUGINS]
    for file in [*files, tmp_path / STAMP]:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text("")
    assert home.install(tmp_path) == tmp_path / "bin"
    files[-1].unlink()
    with pytest.raises(Problem, match="no `go`"):
        home.install(tmp_path)


@pytest.mark.parametrize(
    ("variables", "err", "says"),
    [
        ({"DOCKER_HOST": "tcp://far:2376"}, "cannot connect", "DOCKER_HOST names the engine tcp://far:2376"),
        ({engine.SWITCH: "no"}, "cannot connect", "forbids to install or start"),
        ({}, "Got permission denied while trying to connect", "refuses this user"),
        ({}, "cannot connect", "no Docker engine answers"),
    ],
)
def test_an_engine_that_is_not_ours_is_left_alone(
    docker: Program,
    said: list[str],
    monkeypatch: pytest.MonkeyPatch,
    variables: dict[str, str],
    err: str,
    says: str,
) -> None:
    monkeypatch.setattr(debian, "is_ours", lambda: False)
    monkeypatch.setattr(engine, "_start", lambda say: pytest.fail("it was started"))
    monkeypatch.setattr(debian, "install", lambda packages, say: pytest.fail("it was installed"))
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    docker.answers("version", code=1, err=err)
    docker.answers("context", "unix:///var/run/docker.sock")
    with pytest.raises(Problem, match=says):
        engine.ensure(said.append)


def test_a_stale_pid_file_goes_and_a_live_one_stays(tmp_path: Path) -> None:
    stale, live = tmp_path / "stale", tmp_path / "live"
    live.write_text(str(os.getpid()))
    stale.write_text(str(os.getpid()))
    name = Path(f"/proc/{os.getpid()}/comm").read_text().strip()
    assert engine._runs(live, name)
    assert not engine._runs(stale, "dockerd")
    assert (live.exists(), stale.exists()) == (True, False)


@pytest.mark.parametrize(
    ("text", "debian_like"),
    [("ID=debian\n", True), ('ID=ubuntu\nID_LIKE="debian"\n', True), ("ID=fedora\n", False), ("", False)],
)
def test_debian_is_recognised(tmp_path: Path, text: str, debian_like: bool) -> None:
    release = tmp_path / "os-release"
    release.write_text(text)
    assert debian.is_debian_like(release) is debian_like


def test_requirements_are_installed_when_they_changed_and_only_then(
    tmp_path: Path, said: list[str], monkeypatch: pytest.MonkeyPatch, program: Callable[[str], Program]
) -> None:
    (tmp_path / "requirements.txt").write_text("one==1\n")
    (tmp_path / "requirements-dev.txt").write_text("two==2\n")
    pip = program("python")
    pip.answers("-c", sys.version)
    python = venv.python_of(tmp_path)
    python.parent.mkdir(parents=True)
    for file in pip.path.parent.glob("python*"):
        shutil.copy(file, python.parent)

    def runs() -> list[str]:
        return [call.split("/")[-1] for call in Program(python).calls if "install" in call]

    assert venv.ensure(said.append, root=tmp_path) == python
    venv.ensure(said.append, root=tmp_path)
    assert runs() == ["requirements.txt"]
    venv.ensure(said.append, develop=True, root=tmp_path)
    venv.ensure(said.append, develop=True, root=tmp_path)
    assert runs() == ["requirements.txt", "requirements-dev.txt"]

    Program(python).answers("-m pip", code=1)
    (tmp_path / "requirements.txt").write_text("one==2\n")
    for _ in range(2):  # a failure is not taken for done
        with pytest.raises(Problem, match=r"requirements\.txt failed"):
            venv.ensure(said.append, root=tmp_path)
    assert json.loads((python.parents[1] / "mlops-stack.json").read_text()).keys() == {
        "requirements.txt",
        "requirements-dev.txt",
    }
