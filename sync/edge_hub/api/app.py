"""The whole of the API, over one hub."""

from sqlalchemy.exc import OperationalError, TimeoutError
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from edge_hub.api import enrol, facts, keep, losses, releases, sites, trust, verify
from edge_hub.api.guard import Guard
from edge_hub.api.replies import database_error, defect, http_error, kit_error, reply
from edge_hub.hub import Hub
from edge_hub.metrics import CONTENT_TYPE
from edge_hub.workers.worker import counted
from edge_models.errors import KitError


def make_app(hub: Hub) -> Starlette:
    """An ASGI application; `hub` may be started before or after."""

    async def healthz(_request: Request) -> Response:
        return reply({"ok": True, "broker": hub.online})

    async def metrics(_request: Request) -> Response:
        return Response(await run_in_threadpool(_metrics, hub), media_type=CONTENT_TYPE)

    return Starlette(
        routes=[
            *enrol.routes(hub),
            *sites.routes(hub),
            *releases.routes(hub),
            *keep.routes(hub),
            *facts.routes(hub),
            *losses.routes(hub),
            *verify.routes(hub),
            *trust.routes(hub),
            Route("/healthz", healthz),
            Route("/metrics", metrics),
        ],
        middleware=[Middleware(Guard, token=hub.folder.token, is_site=hub.is_site)],
        exception_handlers={
            KitError: kit_error,
            HTTPException: http_error,
            OperationalError: database_error,
            TimeoutError: database_error,
            Exception: defect,
        },
    )


def _metrics(hub: Hub) -> str:
    totals = hub.sites.totals()
    with hub.store.reading() as db:
        workers = counted(db)
    return hub.metrics.render(
        [
            ("edge_hub_sites", "Registered sites.", totals["sites"]),
            ("edge_hub_sites_online", "Sites whose link is up.", totals["online"]),
            ("edge_hub_backlog_records", "Records that sites said they hold and that are not here.", totals["backlog"]),
            ("edge_hub_lost_records", "Records that will never come, all in the table `gaps`.", totals["lost"]),
            (
                "edge_hub_unknown_tail_records",
                "Records that sites told of, that never came and will not: see `fleet losses`.",
                totals["unknown"],
            ),
            (
                "edge_hub_open_tails",
                "Epochs lost before they were over: nobody knows how many more records of them there were.",
                totals["open_tails"],
            ),
            ("edge_hub_incidents", "Things at sites that a person should look at.", totals["incidents"]),
            ("edge_hub_broker_connected", "Whether the hub's own link is up.", float(hub.online)),
        ],
        workers,
    )
