"""Who may ask: the operator's bearer token for everything; but health for anybody, metrics for this machine itself, and
the bytes of artifacts for sites, by the password that they have at the broker.

A proxy on this machine makes everybody's request come from this machine. So the figures are told without a token only
to a request that bears no mark of a proxy. A proxy can hide all of them: then it has to keep `/metrics` to itself
(docs/install.md).
"""

import base64
import hmac
import re
from collections.abc import Callable

from starlette.types import ASGIApp, Receive, Scope, Send

from edge_hub.api.replies import reply
from edge_sync.mqtt import is_loopback

OPEN = "/healthz"
LOCAL = "/metrics"
_BY_PROXY = re.compile(rb"forwarded|via|x-real-ip|x-forwarded-.+")
"""Headers that proxies add. Source: RFC 7239 section 4; RFC 9110 section 7.6.3; the others are custom."""
_BYTES = re.compile(r"/api/v1/artifacts/sha256:[0-9a-f]{64}/bytes")


class Guard:
    """Refuses before anything else of a request is looked at."""

    def __init__(self, app: ASGIApp, token: str, is_site: Callable[[str, str], bool]) -> None:
        """`is_site` says whether a site has this name and this password."""
        self._app, self._is_site = app, is_site
        self._expected = f"Bearer {token}".encode()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """ASGI."""
        if scope["type"] == "http" and not self._allows(scope):
            asks = {"WWW-Authenticate": "Bearer"}
            refusal = reply({"error": "this needs the operator's token: Authorization: Bearer …"}, 401, asks)
            await refusal(scope, receive, send)
            return
        await self._app(scope, receive, send)

    def _allows(self, scope: Scope) -> bool:
        if scope["path"] == OPEN:
            return True
        if scope["path"] == LOCAL and _is_of_this_machine(scope):
            return True
        given = next((value for name, value in scope["headers"] if name == b"authorization"), b"")
        if hmac.compare_digest(given, self._expected):
            return True
        return scope["method"] in ("GET", "HEAD") and bool(_BYTES.fullmatch(scope["path"])) and self._by_password(given)

    def _by_password(self, given: bytes) -> bool:
        kind, _, secret = given.partition(b" ")
        try:
            name, colon, password = base64.b64decode(secret, validate=True).decode().partition(":")
        except ValueError:
            return False
        return kind.lower() == b"basic" and bool(colon) and self._is_site(name, password)


def _is_of_this_machine(scope: Scope) -> bool:
    """Whether a program of this machine asks for itself, by the machine's own name, and no proxy for somebody else."""
    if not scope.get("client") or not is_loopback(scope["client"][0]):
        return False
    if scope["http_version"] == "1.0":  # what nginx speaks unless told otherwise, and then it adds no header at all
        return False
    headers = scope["headers"]
    if any(_BY_PROXY.fullmatch(name) for name, _ in headers):
        return False
    # HAProxy adds none either, and passes on the name that was asked for.
    named = [value.decode("latin-1") for name, value in headers if name == b"host"]
    return len(named) == 1 and is_loopback(_without_port(named[0]))


def _without_port(host: str) -> str:
    """Source: RFC 9110 section 7.2, RFC 3986 section 3.2.2."""
    match = re.fullmatch(r"(?:\[(.+)\]|([^:]+))(?::\d*)?", host)
    return (match[1] or match[2]).lower() if match else ""
