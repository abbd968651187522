"""EST over HTTPS: paths, media types, and bodies, which are base64 of DER. Source: RFC 7030 sections 3.2 and 4."""

import base64
from collections.abc import Sequence

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, pkcs7

from edge_models.errors import RejectedError
from edge_sync.enrol.certificate import UNREADABLE

CACERTS = "/.well-known/est/cacerts"
ENROLL = "/.well-known/est/simpleenroll"
REENROLL = "/.well-known/est/simplereenroll"
HEALTH = "/healthz"
"""No path of EST: whether the hub is well, and by its `Date` what time it is there."""

REQUEST_TYPE = "application/pkcs10"
CACERTS_TYPE = "application/pkcs7-mime"
ISSUED_TYPE = "application/pkcs7-mime; smime-type=certs-only"
BASE64 = {"Content-Transfer-Encoding": "base64"}

MAX_BODY_BYTES = 16 * 1024
"""Of a request; one of a P-256 key is 400 bytes."""

MAX_ANSWER_BYTES = 64 * 1024


def to_body(der: bytes) -> bytes:
    """DER as a body, in lines."""
    return base64.encodebytes(der)


def from_body(body: bytes) -> bytes:
    """The opposite of `to_body`; space counts for nothing. Raises `RejectedError`."""
    try:
        return base64.b64decode(b"".join(body.split()), validate=True)
    except ValueError:
        raise RejectedError("the body is no base64") from None


def pack_certificates(certificates: Sequence[x509.Certificate]) -> bytes:
    """A body that holds these certificates (PKCS#7, certs only), in no order."""
    return to_body(pkcs7.serialize_certificates(list(certificates), Encoding.DER))


def unpack_certificates(body: bytes) -> list[x509.Certificate]:
    """The opposite of `pack_certificates`. Raises `RejectedError`."""
    if len(body) > MAX_ANSWER_BYTES:
        raise RejectedError(f"the answer is over {MAX_ANSWER_BYTES} bytes")
    try:
        found = pkcs7.load_der_pkcs7_certificates(from_body(body))
    except (ValueError, *UNREADABLE):
        raise RejectedError("the answer holds no certificates (PKCS#7): is this really a hub?") from None
    if not found:
        raise RejectedError("the answer holds no certificates (PKCS#7): is this really a hub?")
    return found
