"""Compressed bodies as anybody may send them: what they hold or a refusal, never more memory than is allowed.

It is the only reader of packed data that this project has of its own: packages and images are read by apt, pip, go and docker.
"""

from __future__ import annotations

import gzip
import tracemalloc
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from airgap.images.langfuse_double.double.gzipped import TooLarge, unpacked

LARGEST = 1 << 16
_MEMBERS = st.lists(st.binary(max_size=300), min_size=1, max_size=3)
_fuzzed = settings(max_examples=300, deadline=None)


def _outcome(body: bytes) -> Any:
    try:
        return unpacked(body, LARGEST)
    except (ValueError, TooLarge) as error:
        return type(error)


@_fuzzed
@given(_MEMBERS)
def test_whole_ones_are_read(members: list[bytes]) -> None:
    assert _outcome(b"".join(map(gzip.compress, members))) == b"".join(members)


@_fuzzed
@given(st.binary(max_size=300), st.sampled_from([b"", b"\x1f\x8b", b"\x1f\x8b\x08\xff" + bytes(6)]))
def test_random_bytes_are_refused(noise: bytes, start: bytes) -> None:
    # Chance does not make a checksum.
    assert _outcome(start + noise) is ValueError or not (start + noise)


@_fuzzed
@given(st.binary(max_size=300), st.data())
def test_truncated_ones_are_refused(content: bytes, data: st.DataObject) -> None:
    whole = gzip.compress(content)
    assert _outcome(whole[: data.draw(st.integers(1, len(whole) - 1))]) is ValueError


@_fuzzed
@given(st.binary(max_size=300), st.data())
def test_a_flipped_bit_changes_no_content(content: bytes, data: st.DataObject) -> None:
    body = bytearray(gzip.compress(content))
    place = data.draw(st.integers(0, len(body) * 8 - 1))
    body[place // 8] ^= 1 << place % 8
    # Some bits of the header mean nothing: its time, its system.
    assert _outcome(bytes(body)) in (ValueError, content)


@pytest.mark.parametrize(
    ("size", "taken"), [(LARGEST - 1, True), (LARGEST, True), (LARGEST + 1, False), (64 << 20, False)]
)
def test_a_body_is_not_unpacked_beyond_the_limit(size: int, taken: bool) -> None:
    body = gzip.compress(bytes(size), 9)
    tracemalloc.start()
    try:
        outcome = _outcome(body)
        most = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert outcome == bytes(size) if taken else outcome is TooLarge
    assert most < 8 * LARGEST
