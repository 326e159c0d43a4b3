"""What tests send to Langfuse."""

from __future__ import annotations

import secrets
import time
from typing import Any


def one_span(name: str) -> tuple[str, dict[str, Any]]:
    """The id of a new trace, and the OTLP request that sends it with one span."""
    trace = secrets.token_hex(16)
    span = {
        "traceId": trace,
        "spanId": secrets.token_hex(8),
        "name": name,
        "startTimeUnixNano": str(time.time_ns()),
    }
    return trace, {"resourceSpans": [{"scopeSpans": [{"spans": [span]}]}]}
