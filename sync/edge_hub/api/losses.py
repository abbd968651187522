"""`/api/v1/losses` and what else a person should look at; `/api/v1/sites/{site}/records/{id}/explain`: why."""

from typing import Any

from sqlalchemy import Connection
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from edge_hub.api.asked import known_parameters, number, record_key
from edge_hub.api.replies import reply
from edge_hub.hub import Hub
from edge_hub.records import incidents, losses
from edge_hub.records.explain import explain
from edge_hub.records.registry import row_of
from edge_hub.sites import MAX_PAGE, shown
from edge_models.errors import RejectedError

_DEFAULT_PAGE = 100


def routes(hub: Hub) -> list[Route]:
    """The routes over this hub."""

    def read_losses(site: str | None, reason: str | None, after: losses.Cursor | None, limit: int) -> dict[str, Any]:
        with hub.store.reading() as db:
            _known(db, site)
            found, cursor = losses.page(db, site, reason, after, limit)
        return {"losses": found, "next": cursor and ":".join(map(str, cursor))}

    def read_incidents(site: str | None, limit: int) -> dict[str, Any]:
        with hub.store.reading() as db:
            _known(db, site)
            return {"incidents": incidents.listed(db, site, limit)}

    def read_chain(site: str, record: str) -> dict[str, Any]:
        with hub.store.reading() as db:
            found = explain(db, site, record)
            chain = [shown(each.row) | {"hash": each.row.hash.hex()} for each in found.chain]
            return {"chain": chain, "missing": list(found.missing)}

    async def list_losses(request: Request) -> Response:
        asked = known_parameters(request, "site", "reason", "after", "limit")
        limit = number(asked.get("limit", str(_DEFAULT_PAGE)), "limit", 1, MAX_PAGE)
        after = _cursor(asked["after"]) if "after" in asked else None
        return reply(await run_in_threadpool(read_losses, asked.get("site"), asked.get("reason"), after, limit))

    async def list_incidents(request: Request) -> Response:
        asked = known_parameters(request, "site", "limit")
        limit = number(asked.get("limit", str(_DEFAULT_PAGE)), "limit", 1, MAX_PAGE)
        return reply(await run_in_threadpool(read_incidents, asked.get("site"), limit))

    async def explain_record(request: Request) -> Response:
        record = request.path_params["id"]
        record_key(record)
        return reply(await run_in_threadpool(read_chain, request.path_params["site"], record))

    return [
        Route("/api/v1/losses", list_losses),
        Route("/api/v1/incidents", list_incidents),
        Route("/api/v1/sites/{site}/records/{id}/explain", explain_record),
    ]


def _known(db: Connection, site: str | None) -> None:
    if site is not None:
        row_of(db, site)


def _cursor(text: str) -> losses.Cursor:
    """Site, epoch, lane and first number, as an answer's `next` says them. Raises `RejectedError`."""
    parts = text.split(":")
    if len(parts) != 4:
        raise RejectedError(f"after {text[:100]!r}: wanted what an answer said as `next`")
    return parts[0], parts[1], parts[2], number(parts[3], "after", 0, 2**53)
