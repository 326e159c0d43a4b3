"""When the toolchain builds, when it does not, and what it leaves behind; with a `go` of our own making."""

from __future__ import annotations

import dataclasses
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from airgap.toolchain import builder, ensure
from airgap.toolchain.parts import MC, PARTS, Part
from scripts.machine.problems import Problem

# Answers `go env` and `go build` like Go, counts its builds, and fails or stops half-way when told to.
FAKE_GO = """\
#!{python}
import json, os, pathlib, signal, sys
here = pathlib.Path(__file__).parent
if sys.argv[1] == "env":
    version = (here / "version").read_text()
    print(json.dumps({{"GOVERSION": version, "GOOS": "linux", "GOARCH": "amd64"}}))
    sys.exit()
with (here / "builds").open("a") as builds:
    builds.write(json.dumps([os.getcwd(), os.environ["CGO_ENABLED"], *sys.argv[1:]]) + "\\n")
output = pathlib.Path(sys.argv[sys.argv.index("-o") + 1])
output.write_text("half of it")
if (here / "fails").exists():
    sys.exit("first line\\n" * 40 + "undefined: something")
if (here / "killed").exists():
    os.kill(os.getppid(), signal.SIGKILL)
output.write_text("the binary")
output.chmod(0o755)
"""


@pytest.fixture
def go(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of the only `go` on PATH; the cache is empty."""
    folder = tmp_path / "go"
    folder.mkdir()
    (folder / "go").write_text(FAKE_GO.format(python=sys.executable))
    (folder / "go").chmod(0o755)
    (folder / "version").write_text("go1.26.8")
    nice = shutil.which("nice")
    assert nice
    (folder / "nice").symlink_to(nice)
    monkeypatch.setattr(builder, "USUAL_GO", tmp_path / "nowhere")
    monkeypatch.setenv("PATH", str(folder))
    monkeypatch.setenv("MLOPS_STACK_CACHE", str(tmp_path / "cache"))
    return folder


def quiet(line: str) -> None:
    """Says nothing."""


def builds(go: Path) -> list[str]:
    path = go / "builds"
    return path.read_text().splitlines() if path.exists() else []


def cached(tmp_path: Path) -> list[str]:
    """What lies in the cache, logs and locks aside."""
    return sorted(path.name for path in (tmp_path / "cache/toolchain").iterdir() if path.is_dir())


def test_builds_once_with_locked_modules(go: Path, tmp_path: Path) -> None:
    said: list[str] = []
    path = ensure("mc", said.append)
    assert path.read_text() == "the binary"
    assert [line.split(":")[0] for line in said] == [f"mc {MC.version}"] * 2
    assert ensure("mc", said.append) == path
    assert len(said) == 2
    [build] = builds(go)
    assert "-mod=readonly" in build
    assert "-trimpath" in build
    assert f"ReleaseTag={MC.version}" in build
    assert str(MC.module) in build
    assert cached(tmp_path) == [path.parent.name]


def test_every_input_makes_another_build(go: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    module = tmp_path / "modules/mc"
    shutil.copytree(MC.module, module)
    monkeypatch.setattr(Part, "module", property(lambda self: module))
    paths = [ensure("mc", quiet)]
    for name in ("go.mod", "go.sum", "main.go"):
        with (module / name).open("a") as file:
            file.write("\n// changed\n")
        paths.append(ensure("mc", quiet))
    (go / "version").write_text("go1.27")
    paths.append(ensure("mc", quiet))
    monkeypatch.setitem(PARTS, "mc", dataclasses.replace(MC, variables=()))
    paths.append(ensure("mc", quiet))
    assert len(set(paths)) == len(paths) == len(builds(go))


def test_a_failed_build_shows_the_compilers_last_lines_and_leaves_nothing(go: Path, tmp_path: Path) -> None:
    (go / "fails").touch()
    with pytest.raises(Problem) as caught:
        ensure("mc", quiet)
    assert "undefined: something" in caught.value.message
    assert caught.value.message.count("first line") < builder._SHOWN_LINES
    assert "run it again" in caught.value.fix.lower()
    assert cached(tmp_path) == []
    (go / "fails").unlink()
    assert ensure("mc", quiet).read_text() == "the binary"


def test_a_killed_build_is_not_taken_for_a_finished_one(go: Path, tmp_path: Path) -> None:
    (go / "killed").touch()
    script = "from airgap.toolchain import ensure; ensure('mc', str)"
    # The fake compiler kills the process that started it, half-way.
    killed = subprocess.run([sys.executable, "-c", script], cwd=Path(__file__).parents[3], check=False)
    assert killed.returncode == -9
    (go / "killed").unlink()
    path = ensure("mc", quiet)
    assert path.read_text() == "the binary"
    assert len(builds(go)) == 2
    assert cached(tmp_path) == [path.parent.name]


def test_two_at_once_build_once(go: Path) -> None:
    with ThreadPoolExecutor(4) as pool:
        paths = list(pool.map(lambda _: ensure("mc", quiet), range(4)))
    assert len(set(paths)) == 1
    assert len(builds(go)) == 1


@pytest.mark.parametrize(
    ("version", "message"),
    [(None, "no `go` on PATH"), ("go1.21.3", "`go` on PATH is go1.21.3"), ("go1.9", "is go1.9")],
)
def test_a_missing_or_old_go_is_named_with_its_fix(go: Path, version: str | None, message: str) -> None:
    if version is None:
        (go / "go").unlink()
    else:
        (go / "version").write_text(version)
    with pytest.raises(Problem) as caught:
        ensure("docker", quiet)
    assert message in caught.value.message
    assert "install Go 1.26" in caught.value.fix
    assert builds(go) == []


def test_an_unknown_part_is_named_with_those_that_exist(go: Path) -> None:
    with pytest.raises(Problem, match="'dokcer'") as caught:
        ensure("dokcer", quiet)
    assert "docker" in caught.value.fix
