"""Keep a prompt in Langfuse: create a version, fetch it by label, fill it in, and link it to what it led to.

set -a; . ./client.env; python examples/prompt_management.py
"""

from __future__ import annotations

from langfuse import Langfuse, get_client
from langfuse.model import ChatPromptClient

NAME = "example/research"
LABEL = "production"
MESSAGES = [
    {"role": "system", "content": "Answer in {{sentences}} sentences, for a reader who is new to the field."},
    {"role": "user", "content": "What should I know about {{topic}}?"},
]


def published(langfuse: Langfuse) -> ChatPromptClient:
    """The prompt as it stands under the label; a new version only where the text has changed."""
    listed = langfuse.api.prompts.list(name=NAME, label=LABEL).data
    if listed:
        current = langfuse.get_prompt(NAME, label=LABEL, type="chat", cache_ttl_seconds=0)
        if [{"role": one["role"], "content": one["content"]} for one in current.prompt] == MESSAGES:
            return current
    langfuse.create_prompt(
        name=NAME,
        type="chat",
        prompt=MESSAGES,
        labels=[LABEL],
        tags=["example"],
        config={"model": "gpt-4o-mini", "temperature": 0.2},
    )
    return langfuse.get_prompt(NAME, label=LABEL, type="chat", cache_ttl_seconds=0)


def main() -> None:
    """Fetch, compile and use; the generation in the trace names the version that it used."""
    langfuse = get_client()
    prompt = published(langfuse)
    messages = prompt.compile(topic="AI safety", sentences="two")
    with langfuse.start_as_current_observation(
        as_type="generation", name="answer", prompt=prompt, input=messages, model=prompt.config["model"]
    ) as generation:
        # A model would be asked here, with `messages` and `prompt.config`.
        generation.update(output="It is about systems that do what is meant.")
        trace_id = generation.trace_id
    langfuse.flush()

    print(f"prompt: {NAME}, version {prompt.version}, labels {', '.join(sorted(prompt.labels))}")
    for message in messages:
        print(f"  {message['role']}: {message['content']}")
    print(f"trace:  {langfuse.get_trace_url(trace_id=trace_id)}")


if __name__ == "__main__":
    main()
