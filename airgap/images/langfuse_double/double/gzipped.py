"""Bodies that come compressed."""

from __future__ import annotations

import gzip
import io
import zlib


class TooLarge(Exception):
    """A body holds more than is taken."""


def unpacked(body: bytes, largest: int) -> bytes:
    """What a gzip body holds; ValueError where it is none. A small one may hold a thousand times its size."""
    try:
        with gzip.GzipFile(fileobj=io.BytesIO(body)) as stream:
            content = stream.read(largest + 1)
    except (OSError, EOFError, zlib.error) as error:
        raise ValueError("not gzip, or not whole") from error
    if len(content) > largest:
        raise TooLarge
    return content
