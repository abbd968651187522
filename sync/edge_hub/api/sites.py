"""`/api/v1/sites`: the register, and what each site delivered."""

from pydantic import BaseModel, ConfigDict
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from edge_hub.api.asked import body, known_parameters, number, record_key
from edge_hub.api.enrol import JoinDays, Labels, inviting
from edge_hub.api.replies import reply
from edge_hub.enrol.tokens import DEFAULT_DAYS
from edge_hub.hub import Hub
from edge_hub.sites import MAX_PAGE
from edge_models.errors import RejectedError

_DEFAULT_PAGE = 100


class Registration(BaseModel):
    """What it takes to register a site."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    site: str
    labels: Labels = {}
    replace: bool = False
    """Make new passwords, or a new join token, for a site that is known."""
    join: bool = False
    """The site gets a certificate by itself, with a token that is good once and for `join_days`, and no password."""
    join_days: JoinDays = DEFAULT_DAYS


def routes(hub: Hub) -> list[Route]:
    """The routes over this hub."""

    async def list_sites(_request: Request) -> Response:
        return reply({"sites": await run_in_threadpool(hub.sites.all)})

    async def register(request: Request) -> Response:
        asked = await body(request, Registration)
        wanted, invite = [(asked.site, asked.labels)], inviting(hub, asked.join_days) if asked.join else None
        (made,) = await run_in_threadpool(hub.sites.register_all, wanted, asked.replace, "operator", invite)
        return reply({"broker_url": hub.broker_url, "director_key": hub.director_key} | made, 201)

    async def show(request: Request) -> Response:
        return reply(await run_in_threadpool(hub.sites.get, request.path_params["site"]))

    async def gaps(request: Request) -> Response:
        return reply({"gaps": await run_in_threadpool(hub.sites.gaps, request.path_params["site"])})

    async def records(request: Request) -> Response:
        asked = known_parameters(request, "epoch", "lane", "kind", "agent", "after", "limit", "order")
        limit = number(asked.pop("limit", str(_DEFAULT_PAGE)), "limit", 1, MAX_PAGE)
        order = asked.pop("order", "oldest")
        if order not in ("oldest", "newest"):
            raise RejectedError(f"order {order[:40]!r}: wanted oldest or newest")
        after = record_key(asked.pop("after")) if "after" in asked else None
        page, cursor = await run_in_threadpool(
            hub.sites.page, request.path_params["site"], asked, after, limit, order == "newest"
        )
        return reply({"records": page, "next": cursor})

    async def record(request: Request) -> Response:
        key = record_key(request.path_params["id"])
        return reply(await run_in_threadpool(hub.sites.record, request.path_params["site"], *key))

    return [
        Route("/api/v1/sites", list_sites),
        Route("/api/v1/sites", register, methods=["POST"]),
        Route("/api/v1/sites/{site}", show),
        Route("/api/v1/sites/{site}/gaps", gaps),
        Route("/api/v1/sites/{site}/records", records),
        Route("/api/v1/sites/{site}/records/{id}", record),
    ]
