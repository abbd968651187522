"""`/api/v1/join-tokens`, and registering sites so that they join by themselves, and revoking them."""

from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field
from sqlalchemy import Connection
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from edge_hub.api.asked import body
from edge_hub.api.replies import reply
from edge_hub.enrol.enrolment import Enrolment
from edge_hub.enrol.tokens import DEFAULT_DAYS, MAX_DAYS, MAX_GROUP
from edge_hub.hub import Hub
from edge_hub.sites import Invite
from edge_models.errors import RejectedError

MAX_BULK = 1_000
_MAX_BULK_BYTES = 4 * 1024 * 1024

Text100 = Annotated[str, Field(max_length=100)]
Labels = Annotated[dict[Text100, Text100], Field(max_length=50)]
JoinDays = Annotated[int, Field(ge=1, le=MAX_DAYS)]


class NewSite(BaseModel):
    """One of many sites to register."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    site: str
    labels: Labels = {}


class Bulk(BaseModel):
    """Sites that are to join by themselves: all are registered, or none."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    sites: Annotated[list[NewSite], Field(min_length=1, max_length=MAX_BULK)]
    join_days: JoinDays = DEFAULT_DAYS
    replace: bool = False


class Group(BaseModel):
    """A token with which `count` sites may join, whatever their ids; they get these labels, and the group's."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    group: str
    count: Annotated[int, Field(ge=1, le=MAX_GROUP)]
    labels: Labels = {}
    days: JoinDays = DEFAULT_DAYS
    replace: bool = False


class Revocation(BaseModel):
    """Why a site is revoked; for the audit."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    reason: Annotated[str, Field(max_length=500)] = ""


def enrolment_of(hub: Hub) -> Enrolment:
    """The hub's. Raises `RejectedError` where it enrols nobody."""
    if hub.enrolment is None:
        raise RejectedError("this hub enrols no sites: start it with --enrol HOST:8443 --name NAME --mqtts HOST:8883")
    return hub.enrolment


def inviting(hub: Hub, days: int) -> Invite:
    """What makes a site's token, good for so many days. Raises `RejectedError` where the hub enrols nobody."""
    enrolment = enrolment_of(hub)

    def invite(db: Connection, now_us: int, site: str) -> dict[str, Any]:
        return enrolment.invite(db, now_us, site, days)

    return invite


def routes(hub: Hub) -> list[Route]:
    """The routes over this hub."""

    async def bulk(request: Request) -> Response:
        asked = await body(request, Bulk, _MAX_BULK_BYTES)
        wanted = [(each.site, each.labels) for each in asked.sites]
        invite = inviting(hub, asked.join_days)
        made = await run_in_threadpool(hub.sites.register_all, wanted, asked.replace, "operator", invite)
        return reply({"sites": [{"director_key": hub.director_key} | each for each in made]}, 201)

    async def make_token(request: Request) -> Response:
        asked = await body(request, Group)
        made = await run_in_threadpool(
            enrolment_of(hub).invite_group,
            asked.group, asked.count, asked.labels, asked.days, asked.replace, "operator",
        )  # fmt: skip
        return reply(made | {"director_key": hub.director_key}, 201)

    async def list_tokens(_request: Request) -> Response:
        return reply({"join_tokens": await run_in_threadpool(enrolment_of(hub).tokens)})

    async def void_token(request: Request) -> Response:
        name = request.path_params["id"]
        await run_in_threadpool(enrolment_of(hub).void, name, "operator")
        return reply({"id": name})

    async def revoke(request: Request) -> Response:
        asked = await body(request, Revocation)
        site = request.path_params["site"]
        return reply(await run_in_threadpool(hub.revoking.revoke, site, asked.reason, "operator"))

    return [
        Route("/api/v1/sites/bulk", bulk, methods=["POST"]),
        Route("/api/v1/sites/{site}/revoke", revoke, methods=["POST"]),
        Route("/api/v1/join-tokens", make_token, methods=["POST"]),
        Route("/api/v1/join-tokens", list_tokens),
        Route("/api/v1/join-tokens/{id}", void_token, methods=["DELETE"]),
    ]
