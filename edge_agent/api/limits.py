"""How much a client of the local API may ask for: every bound that holds against a hostile or broken one."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Limits:
    """The API's bounds. The defaults fit a node of 512 MB; tests make them small."""

    body_bytes: int = 16 * 1024 * 1024
    """Largest request body, also after it is decompressed: a batch of 26 RGB pictures of 224 x 224 in float32."""
    held_bytes: int = 64 * 1024 * 1024
    """Bodies of all requests under way; beyond that a request is told to come back."""
    inference_header_bytes: int = 1024 * 1024
    """Largest JSON part of a request with binary tensors: names and shapes need a few hundred bytes."""
    elements: int = 1024 * 1024
    """Most values in JSON tensors. Each costs up to 64 bytes as a Python object: they are counted before parsing."""
    http_header_bytes: int = 32 * 1024
    """Request line and header fields."""
    connections: int = 64
    """Open at once."""
    header_timeout_s: float = 10.0
    """From connecting, or from a request's first byte, to the end of its header fields."""
    body_timeout_s: float = 30.0
    """From the end of the header fields to the end of the body."""
    idle_timeout_s: float = 15.0
    """For the next request on an open connection."""
    stalled_timeout_s: float = 10.0
    """For a client to take what was sent to it."""
    drain_bytes: int = 32 * 1024 * 1024
    """Largest message that is read at all. A body that is refused is read up to here and thrown away, so that its
    sender gets to read why."""
