"""Request bodies sent as gzip or deflate, never more of them in memory than a body may have."""

import zlib

from edge_models.errors import RejectedError

_WINDOW = {"gzip": 31, "deflate": 15}
"""zlib's `wbits`: 16 more for gzip's envelope. HTTP's deflate is zlib's format. Source: RFC 9110, section 8.4.1."""

ENCODINGS = frozenset(_WINDOW)


def decompress(body: bytes, encoding: str, max_bytes: int) -> bytes:
    """The content of a body in one of `ENCODINGS`. Raises `RejectedError` where it is damaged or too large."""
    inflate = zlib.decompressobj(wbits=_WINDOW[encoding])
    try:
        content = inflate.decompress(body, max_bytes + 1)
    except zlib.error:
        raise RejectedError(f"the body is not {encoding}") from None
    if len(content) > max_bytes:
        raise RejectedError(f"the body is larger than {max_bytes} bytes when decompressed")
    if not inflate.eof or inflate.unused_data:
        raise RejectedError(f"the body is not one whole {encoding} stream")
    return content
