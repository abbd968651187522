"""`/api/v1/trust`: what may run, as the operator signed it."""

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from edge_hub.api.asked import body
from edge_hub.api.replies import reply
from edge_hub.hub import Hub
from edge_sync.trust.paths import MAX_SET_BYTES


class Files(BaseModel):
    """Metadata by file name, as text."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    files: dict[str, str]


class Media(BaseModel):
    """For how long what a stick carries may be accepted."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    valid_days: Annotated[int, Field(ge=1, le=365)]


def routes(hub: Hub) -> list[Route]:
    """The routes over this hub."""

    async def show(_request: Request) -> Response:
        standing = await run_in_threadpool(hub.trust.standing)
        return reply({"online_key": hub.trust.online_key, "director_key": hub.director_key} | standing)

    async def take(request: Request) -> Response:
        asked = await body(request, Files, 2 * MAX_SET_BYTES)
        files = {name: text.encode() for name, text in asked.files.items()}
        return reply({"versions": await run_in_threadpool(hub.trust.take, files, "operator")})

    async def media(request: Request) -> Response:
        asked = await body(request, Media)
        packed = await run_in_threadpool(hub.trust.media, asked.valid_days, "operator")
        return Response(packed, media_type="application/octet-stream")

    return [
        Route("/api/v1/trust", show),
        Route("/api/v1/trust", take, methods=["PUT"]),
        Route("/api/v1/trust/media", media, methods=["POST"]),
    ]
