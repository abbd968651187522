"""`/api/v1/sites/{site}/verify`: whether what is held of a site is what the site wrote."""

import threading
from dataclasses import asdict

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from edge_hub.api.replies import reply
from edge_hub.hub import Hub
from edge_hub.records.chain import Report, verify_site
from edge_models.errors import RetryableError

_BUSY_S = 30.0


def routes(hub: Hub) -> list[Route]:
    """The route over this hub. It answers when all of the site was read: up to a minute for a million records."""
    one = threading.Lock()

    def work(site: str) -> Report:
        if not one.acquire(blocking=False):
            raise RetryableError("another site is being verified: ask again when that is done", _BUSY_S)
        try:
            return verify_site(hub.store, site)
        finally:
            one.release()

    async def verify(request: Request) -> Response:
        report = await run_in_threadpool(work, request.path_params["site"])
        return reply(
            {
                "streams": [asdict(each) | {"hash": each.hash.hex()} for each in report.streams],
                "checkpoints": report.checkpoints,
                "findings": [asdict(each) for each in report.findings],
            }
        )

    return [Route("/api/v1/sites/{site}/verify", verify)]
