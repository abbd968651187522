"""`/api/v1/keep` and `/api/v1/sites/{site}/subjects/{subject}`: how long records are kept, and erasing a person's."""

from dataclasses import asdict

from pydantic import BaseModel, ConfigDict
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from edge_hub.api.asked import body, known_parameters
from edge_hub.api.replies import reply
from edge_hub.hub import Hub, now_us
from edge_hub.keeping.erase import erase_subject
from edge_hub.keeping.rules import KeepRules
from edge_sync.keep import ALL, KeepRule


class Rule(BaseModel):
    """A rule to set."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    kind: str = ALL
    agent: str = ALL
    days: int


def routes(hub: Hub) -> list[Route]:
    """The routes over this hub."""
    rules = KeepRules(hub.store, now_us)

    async def list_rules(_request: Request) -> Response:
        return reply({"keep": await run_in_threadpool(rules.all)})

    async def set_rule(request: Request) -> Response:
        asked = await body(request, Rule)
        rule = KeepRule(asked.kind, asked.agent, asked.days)
        await run_in_threadpool(rules.set, rule, "operator")
        return reply(asdict(rule))

    async def remove_rule(request: Request) -> Response:
        asked = known_parameters(request, "kind", "agent")
        kind, agent = asked.get("kind", ALL), asked.get("agent", ALL)
        await run_in_threadpool(rules.remove, kind, agent, "operator")
        return reply({"kind": kind, "agent": agent})

    async def erase(request: Request) -> Response:
        site, subject = request.path_params["site"], request.path_params["subject"]
        folder = hub.folder.path
        erased = await run_in_threadpool(erase_subject, hub.store, folder, site, subject, "operator", now_us())
        return reply(asdict(erased))

    return [
        Route("/api/v1/keep", list_rules),
        Route("/api/v1/keep", set_rule, methods=["PUT"]),
        Route("/api/v1/keep", remove_rule, methods=["DELETE"]),
        Route("/api/v1/sites/{site}/subjects/{subject:path}", erase, methods=["DELETE"]),
    ]
