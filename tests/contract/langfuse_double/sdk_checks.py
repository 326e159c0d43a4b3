"""The real Langfuse SDK against the double. Run by test_double_sdk.py, in the environment of the clients."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from langfuse import Langfuse, observe
from langfuse.api.resources.commons.errors import NotFoundError
from langfuse.media import LangfuseMedia

from tests.conditions import until


# One client for all: the SDK has one set of threads for each public key, and shutdown ends it for good.
@pytest.fixture(scope="module")
def langfuse() -> Iterator[Langfuse]:
    client = Langfuse()  # address and keys come from LANGFUSE_*
    yield client
    client.shutdown()


def test_a_trace_with_all_it_can_carry_comes_back(langfuse: Langfuse) -> None:
    assert langfuse.auth_check()

    @observe(as_type="generation")
    def answer(question: str) -> str:
        langfuse.update_current_generation(model="tiny", usage_details={"input": 3, "output": 4})
        return question.upper()

    @observe()
    def ask(question: str) -> dict[str, str]:
        langfuse.update_current_trace(
            user_id="ada", session_id="s1", tags=["one", "two"], metadata={"k": "v"}
        )
        langfuse.score_current_trace(name="useful", value=1.0)
        return {"answer": answer(question), "trace": langfuse.get_current_trace_id() or ""}

    trace_id = ask("why?")["trace"]
    langfuse.flush()

    def whole():
        try:
            trace = langfuse.api.trace.get(trace_id)
        except NotFoundError:
            return None
        return trace if len(trace.observations) == 2 and trace.scores else None

    trace = until(whole, "the trace with its generation and its score")
    assert (trace.name, trace.user_id, trace.session_id, trace.tags) == ("ask", "ada", "s1", ["one", "two"])
    assert trace.input == {"args": ["why?"], "kwargs": {}}
    assert trace.output == {"answer": "WHY?", "trace": trace_id}
    generation = next(one for one in trace.observations if one.type == "GENERATION")
    assert (generation.model, generation.usage_details["output"]) == ("tiny", 4)
    assert generation.parent_observation_id in {one.id for one in trace.observations}
    assert trace.scores[0].value == 1.0


def test_prompts_have_versions_and_labels(langfuse: Langfuse) -> None:
    name = "folder/greeting"
    for text in ("Hello {{name}}", "Good day {{name}}"):
        langfuse.create_prompt(name=name, prompt=text, labels=["production"], config={"temperature": 0})
    current = langfuse.get_prompt(name, cache_ttl_seconds=0)
    assert (current.version, current.compile(name="Ada")) == (2, "Good day Ada")
    assert sorted(current.labels) == ["latest", "production"]
    assert langfuse.get_prompt(name, version=1).compile(name="Ada") == "Hello Ada"
    langfuse.update_prompt(name=name, version=1, new_labels=["production"])
    assert langfuse.get_prompt(name, cache_ttl_seconds=0).version == 1
    chat = langfuse.create_prompt(
        name="chat", type="chat", prompt=[{"role": "system", "content": "Be {{how}}"}], labels=["staging"]
    )
    assert chat.compile(how="brief") == [{"role": "system", "content": "Be brief"}]
    with pytest.raises(NotFoundError):
        langfuse.get_prompt("chat", max_retries=0)
    listed = {one.name: one for one in langfuse.api.prompts.list().data}
    assert listed[name].versions == [1, 2]


def test_media_in_a_trace_is_uploaded(langfuse: Langfuse) -> None:
    media = LangfuseMedia(content_bytes=b"a picture", content_type="image/png")
    with langfuse.start_as_current_span(name="with-media", input={"image": media}):
        pass
    langfuse.flush()

    def uploaded() -> Any:
        try:
            return langfuse.api.media.get(media._media_id)
        except NotFoundError:
            return None

    assert until(uploaded, "the upload").content_length == len(b"a picture")
