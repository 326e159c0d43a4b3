"""`ensure` builds once, again when an input changes, resumes after a failure, and tells what failed."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest

from airgap.images import RECIPES, ensure
from scripts.machine.problems import Problem
from tests.engine import docker

DOCKERFILE = "ARG BASE_IMAGE\nFROM ${BASE_IMAGE}\nCOPY content /content\n"


@pytest.fixture
def probe(tmp_path: Path, image: Callable[[str], str], monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A small recipe of its own, on the base that the others stand on."""
    image("mc")
    name = f"t-{secrets.token_hex(3)}"
    folder = tmp_path / "recipe"
    folder.mkdir()
    (folder / "Dockerfile").write_text(DOCKERFILE)
    (folder / "content").write_text("one")
    recipe = replace(RECIPES["mc"], name=name, repository=name, tag="1", folder=folder, binaries=())
    monkeypatch.setitem(RECIPES, name, recipe)
    monkeypatch.setenv("MLOPS_STACK_CACHE", str(tmp_path / "cache"))
    yield name
    docker("rmi", recipe.reference, check=False)


def content(reference: str) -> str:
    return docker("run", "--rm", reference, "cat", "/content").stdout


def test_builds_once_and_again_when_an_input_changes(probe: str) -> None:
    said: list[str] = []
    reference = ensure([probe], said.append)[probe]
    assert content(reference) == "one"
    assert len(said) == 2
    first = docker("image", "inspect", "--format", "{{.Id}}", reference).stdout

    assert ensure([probe], said.append) == {probe: reference}
    assert len(said) == 2, "nothing to do: nothing done, nothing said"

    (RECIPES[probe].folder / "content").write_text("two")
    ensure([probe], said.append)
    assert content(reference) == "two"
    assert docker("image", "inspect", first.strip(), check=False).returncode != 0, (
        "the replaced image is removed"
    )


def test_parallel_calls_build_once(probe: str) -> None:
    said: list[str] = []
    with ThreadPoolExecutor(3) as pool:
        references = list(pool.map(lambda _: ensure([probe], said.append)[probe], range(3)))
    assert len(set(references)) == 1
    assert len([line for line in said if "built in" in line]) == 1


def test_a_failure_tells_the_step_and_its_last_lines(probe: str) -> None:
    dockerfile = RECIPES[probe].folder / "Dockerfile"
    dockerfile.write_text(DOCKERFILE + "RUN echo out of cheese; exit 3\n")
    with pytest.raises(Problem, match=rf"(?s){probe}:1.*out of cheese.*code: 3"):
        ensure([probe], lambda line: None)
    dockerfile.write_text(DOCKERFILE)
    assert content(ensure([probe], lambda line: None)[probe]) == "one"


def test_an_unknown_name_is_told_with_the_known_ones() -> None:
    with pytest.raises(Problem, match=r"'mysql'.*\n?.*postgres"):
        ensure(["mysql"])
