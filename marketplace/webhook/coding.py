"""Undo the content coding of an answer within a bound, so that a small body never becomes a large one in memory."""

import zlib
from typing import Final

ZLIB_OR_GZIP: Final = 32 + zlib.MAX_WBITS
"Setting of zlib that recognises the header of either format."
CODINGS: Final = {
    "gzip": (ZLIB_OR_GZIP,),
    "x-gzip": (ZLIB_OR_GZIP,),
    "deflate": (ZLIB_OR_GZIP, -zlib.MAX_WBITS),  # some servers send the bare stream (RFC 9110, section 8.4.1.2)
}
"Settings of zlib to try for each coding that can be undone."


def decode_body(body: bytes, coding: str, most_bytes: int) -> tuple[bytes, bool] | None:
    """Return the decoded body and whether it is complete, or None if the coding is unknown or the body damaged.

    At most `most_bytes` are decoded; a longer body is incomplete, as is one that ends before its stream does.
    """
    for window_bits in CODINGS.get(coding, ()):
        stream = zlib.decompressobj(wbits=window_bits)
        try:
            decoded = stream.decompress(body, most_bytes + 1)
        except zlib.error:
            continue
        return decoded[:most_bytes], stream.eof and not stream.unused_data and len(decoded) <= most_bytes
    return None
