"""Who may ask: the operator's bearer token for everything, but health for anybody, metrics for this machine."""

import hmac

from starlette.types import ASGIApp, Receive, Scope, Send

from edge_hub.api.replies import reply
from edge_sync.mqtt import is_loopback

OPEN = "/healthz"
LOCAL = "/metrics"


class Guard:
    """Refuses before anything else of a request is looked at."""

    def __init__(self, app: ASGIApp, token: str) -> None:
        self._app = app
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
        return hmac.compare_digest(given, self._expected)
