"""The content coding of an answer is undone within a bound, or refused by name."""

import gzip
import zlib

import pytest

from marketplace.webhook.coding import decode_body

BODY = b'{"status":"refused"}'


def bare(body: bytes) -> bytes:
    stream = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    return stream.compress(body) + stream.flush()


@pytest.mark.parametrize(
    ("coding", "body"),
    [
        ("gzip", gzip.compress(BODY)),
        ("x-gzip", gzip.compress(BODY)),
        ("deflate", zlib.compress(BODY)),
        ("deflate", bare(BODY)),
    ],
)
def test_gzip_and_both_kinds_of_deflate_are_undone(coding: str, body: bytes) -> None:
    assert decode_body(body, coding, 100) == (BODY, True)


@pytest.mark.parametrize(
    ("coding", "body"),
    [("br", BODY), ("gzip, gzip", gzip.compress(gzip.compress(BODY))), ("gzip", BODY), ("zstd", b"")],
)
def test_an_unknown_coding_and_a_damaged_body_are_refused(coding: str, body: bytes) -> None:
    assert decode_body(body, coding, 100) is None


def test_a_body_that_grows_a_thousandfold_is_cut_at_the_bound() -> None:
    assert decode_body(gzip.compress(bytes(10_000_000)), "gzip", 64) == (bytes(64), False)


@pytest.mark.parametrize("body", [gzip.compress(BODY)[:-1], gzip.compress(BODY) + b"more", b""])
def test_a_stream_that_does_not_end_with_its_body_is_incomplete(body: bytes) -> None:
    decoded = decode_body(body, "gzip", 100)
    assert decoded is not None
    assert not decoded[1]
