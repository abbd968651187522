"""`/api/v1/facts`: what all sites are told; `/api/v1/sites/{site}/facts`: what one of them knows."""

from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from edge_hub.api.asked import body
from edge_hub.api.replies import reply
from edge_hub.hub import Hub

_TEN_YEARS_S = 315_576_000


class FactValue(BaseModel):
    """A fact's new value, and for how long it holds; for ever where that is left out."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    value: Any
    expires_in_s: Annotated[float, Field(gt=0, le=_TEN_YEARS_S)] | None = None


def routes(hub: Hub) -> list[Route]:
    """The routes over this hub."""

    async def of_site(request: Request) -> Response:
        return reply({"facts": await run_in_threadpool(hub.facts.of, request.path_params["site"])})

    async def of_fleet(_request: Request) -> Response:
        return reply(await run_in_threadpool(hub.fleet_facts.all))

    async def show(request: Request) -> Response:
        return reply(await run_in_threadpool(hub.fleet_facts.get, request.path_params["key"]))

    async def put(request: Request) -> Response:
        asked, key = await body(request, FactValue), request.path_params["key"]
        return reply(await run_in_threadpool(hub.fleet_facts.put, key, asked.value, asked.expires_in_s, "operator"))

    async def delete(request: Request) -> Response:
        key = request.path_params["key"]
        await run_in_threadpool(hub.fleet_facts.delete, key, "operator")
        return reply({"deleted": key})

    return [
        Route("/api/v1/sites/{site}/facts", of_site),
        Route("/api/v1/facts", of_fleet),
        Route("/api/v1/facts/{key:path}", show),
        Route("/api/v1/facts/{key:path}", put, methods=["PUT"]),
        Route("/api/v1/facts/{key:path}", delete, methods=["DELETE"]),
    ]
