"""Who may ask: the operator's bearer token for everything; but health for anybody, metrics for this machine, and the
bytes of artifacts for sites, by the password that they have at the broker.
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
        if scope["path"] == LOCAL and scope.get("client") and is_loopback(scope["client"][0]):
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
