"""`/api/v1/releases` and `/api/v1/artifacts`: what may run, and telling sites to run it."""

import re
from dataclasses import asdict
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import FileResponse, Response
from starlette.routing import Route

from edge_hub.api.asked import body, check_length, number
from edge_hub.api.replies import reply
from edge_hub.hub import Hub
from edge_models.errors import RejectedError
from edge_sync.release import MAX_ARTIFACT_BYTES, Release


class Push(BaseModel):
    """Where a release should go: to these sites, or to all."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    sites: Annotated[list[str], Field(max_length=100_000)] | None = None
    all: bool = False


def routes(hub: Hub) -> list[Route]:
    """The routes over this hub."""

    async def list_releases(_request: Request) -> Response:
        return reply({"releases": await run_in_threadpool(hub.releases.all)})

    async def create(request: Request) -> Response:
        release = await body(request, Release)
        await run_in_threadpool(hub.releases.create, release, "operator")
        return reply({"release": release.release}, 201)

    async def show(request: Request) -> Response:
        return reply(await run_in_threadpool(hub.releases.get, _release(request)))

    async def push(request: Request) -> Response:
        asked = await body(request, Push)
        if bool(asked.sites) is asked.all:
            raise RejectedError('push: say either {"sites": ["SITE", …]} or {"all": true}')
        names = None if asked.all else asked.sites
        pushed = await run_in_threadpool(hub.releases.push, _release(request), names, "operator")
        return reply({"release": _release(request), "pushed": [asdict(each) for each in pushed]}, 202)

    async def has_artifact(request: Request) -> Response:
        digest = _digest(request)
        held = await run_in_threadpool(hub.releases.has_artifact, digest)
        return reply({"digest": digest}) if held else reply({"error": f"no artifact {digest} is here"}, 404)

    async def artifact_bytes(request: Request) -> Response:
        digest = _digest(request)
        path = hub.blobs.path(digest)
        if not await run_in_threadpool(path.is_file):
            return reply({"error": f"no artifact {digest} is here"}, 404)
        return FileResponse(path, media_type="application/octet-stream")

    async def desired(request: Request) -> Response:
        site = request.path_params["site"]
        found = await run_in_threadpool(hub.releases.envelope, site)
        if found is None:
            return reply({"error": f"site {site!r} has no desired document: push a release to it"}, 404)
        return Response(found, media_type="application/json")

    async def put_artifact(request: Request) -> Response:
        digest = _digest(request)
        check_length(request, MAX_ARTIFACT_BYTES)
        if await run_in_threadpool(hub.releases.has_artifact, digest):
            return reply({"digest": digest})
        incoming = hub.blobs.receive(digest)
        try:
            async for part in request.stream():
                incoming.feed(part)
            artifact = await run_in_threadpool(incoming.finish)
        finally:
            incoming.drop()
        await run_in_threadpool(hub.releases.add_artifact, digest, artifact, "operator")
        return reply({"digest": digest, "size": artifact.size}, 201)

    return [
        Route("/api/v1/releases", list_releases),
        Route("/api/v1/releases", create, methods=["POST"]),
        Route("/api/v1/releases/{release}", show),
        Route("/api/v1/releases/{release}/push", push, methods=["POST"]),
        Route("/api/v1/artifacts/{digest}", has_artifact),
        Route("/api/v1/artifacts/{digest}", put_artifact, methods=["PUT"]),
        Route("/api/v1/artifacts/{digest}/bytes", artifact_bytes),
        Route("/api/v1/sites/{site}/desired", desired),
    ]


def _release(request: Request) -> int:
    return number(request.path_params["release"], "release", 1, 2**53)


def _digest(request: Request) -> str:
    digest = str(request.path_params["digest"])
    if not re.fullmatch(r"sha256:[0-9a-f]{64}", digest):
        raise RejectedError(f"artifact {digest[:80]!r}: wanted sha256: and 64 hex digits")
    return digest
