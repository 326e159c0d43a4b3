"""One function seen by both: Langfuse has the trace of every call, MLflow the experiment they belong to.

    set -a; . ./client.env; python examples/dual_logging.py

With OPENAI_API_KEY set, a real model answers; without, a small local stand-in.
"""

from __future__ import annotations

import asyncio
import os
import time

import mlflow
from langfuse import get_client, observe

EXPERIMENT = "example-research-agent"
STAND_IN = "local-stand-in"
MODEL = os.environ.get("OPENAI_MODEL", "gpt-4o-mini") if os.environ.get("OPENAI_API_KEY") else STAND_IN
TOPICS = ("quantum computing", "plate tectonics", "sourdough")


@observe(as_type="generation")
async def complete(prompt: str) -> str:
    """One call of a language model, with its usage in the trace."""
    if MODEL == STAND_IN:
        await asyncio.sleep(0.02)  # as an answer that comes over the network
        text = f"Three things to know about this: {prompt.split(': ')[-1]} is old, deep and worth a look."
        usage = {"input": len(prompt.split()), "output": len(text.split())}
    else:
        from openai import AsyncOpenAI

        answer = await AsyncOpenAI().chat.completions.create(
            model=MODEL, messages=[{"role": "user", "content": prompt}]
        )
        text = answer.choices[0].message.content or ""
        usage = {"input": answer.usage.prompt_tokens, "output": answer.usage.completion_tokens}
    get_client().update_current_generation(model=MODEL, usage_details=usage)
    return text


@observe()
async def research(topic: str, session: str) -> tuple[str, str]:
    """An agent of two steps; its text, and the id of the trace that shows how it came about."""
    langfuse = get_client()
    langfuse.update_current_trace(session_id=session, user_id="example", tags=["example", "dual-logging"])
    notes = await complete(f"Collect facts on: {topic}")
    text = await complete(f"Write a paragraph from these notes: {notes}")
    return text, langfuse.get_current_trace_id() or ""


async def main() -> None:
    """Research all topics at once, within one MLflow run."""
    langfuse = get_client()
    if not langfuse.auth_check():
        raise SystemExit("Langfuse refuses the keys of LANGFUSE_PUBLIC_KEY and LANGFUSE_SECRET_KEY")
    mlflow.set_experiment(EXPERIMENT)
    with mlflow.start_run(run_name="research") as run:
        mlflow.log_params({"model": MODEL, "topics": len(TOPICS)})
        started = time.perf_counter()
        # Traces of concurrent calls stay apart: the context is each task's own.
        results = await asyncio.gather(*(research(topic, session=run.info.run_id) for topic in TOPICS))
        mlflow.log_metric("seconds", time.perf_counter() - started)
        for step, (topic, (text, trace_id)) in enumerate(zip(TOPICS, results, strict=True)):
            mlflow.log_metric("response_length", len(text), step=step)
            mlflow.log_text(text, f"answers/{topic.replace(' ', '-')}.txt")
            mlflow.set_tag(f"langfuse.trace.{step}", langfuse.get_trace_url(trace_id=trace_id) or trace_id)
    langfuse.flush()  # before the program ends, or the last traces end with it

    print(f"run:   {mlflow.get_tracking_uri()}/#/experiments/{run.info.experiment_id}/runs/{run.info.run_id}")
    for topic, (_, trace_id) in zip(TOPICS, results, strict=True):
        print(f"trace: {langfuse.get_trace_url(trace_id=trace_id)}  ({topic})")


if __name__ == "__main__":
    asyncio.run(main())
