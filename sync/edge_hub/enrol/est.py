"""What sites ask for over HTTPS: EST's paths, and whether the hub is well. An ASGI application."""

import logging
from collections.abc import Callable

from sqlalchemy.exc import OperationalError, TimeoutError
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from edge_hub.enrol.enrolment import Enrolment
from edge_hub.enrol.issuing import Answer
from edge_hub.enrol.rate import RateLimit, address_key
from edge_hub.enrol.refused import RefusedError, too_often
from edge_models.errors import RejectedError, RetryableError
from edge_sync.enrol import est
from edge_sync.enrol.token import read_basic

log = logging.getLogger(__name__)

PEER = "peer"
"""In a connection's state: the certificate that it showed, DER, or None."""

ADDRESS_BURST, ADDRESS_PER_S = 60, 1.0
"""Requests of one address: a join is two, and the sites of a house may share one."""


def make_est(enrolment: Enrolment) -> Starlette:
    """The application."""
    addresses = RateLimit(ADDRESS_BURST, ADDRESS_PER_S)

    async def health(_request: Request) -> Response:
        return PlainTextResponse("ok\n")

    async def cacerts(request: Request) -> Response:
        allow(request)
        return Response(est.pack_certificates(enrolment.authority.all), 200, est.BASE64, est.CACERTS_TYPE)

    async def enroll(request: Request) -> Response:
        allow(request)
        shown = read_basic(request.headers.get("authorization", ""))
        if shown is None:
            raise RefusedError(401, "show a join token: Authorization: Basic …", proven=False)
        return await answer(request, shown[0], lambda der: join(*shown, der, _address(request)))

    async def reenroll(request: Request) -> Response:
        allow(request)
        peer = request.scope.get("state", {}).get(PEER)
        if peer is None:
            raise RefusedError(401, "show the site's certificate: TLS asks for it here", proven=False)
        name = enrolment.issuing.shown(peer).site
        return await answer(request, name, lambda der: enrolment.issuing.renew(peer, der, _address(request)))

    def allow(request: Request) -> None:
        wait_s = addresses.take(address_key(_address(request)), enrolment.clock())
        if wait_s:
            raise too_often(wait_s, proven=False)

    def join(name: str, secret: str, der: bytes, address: str) -> Answer:
        made = enrolment.issuing.join(name, secret, der, address)
        enrolment.joined(made)
        return made

    async def answer(request: Request, name: str, work: Callable[[bytes], Answer]) -> Response:
        request.state.name = name
        der = await _body(request)
        made = await run_in_threadpool(work, der)
        log.info("certificate_given", extra={"site": made.site, "address": _address(request)})
        return Response(est.pack_certificates(made.chain), 200, est.BASE64, est.ISSUED_TYPE)

    async def refuse(request: Request, error: Exception) -> Response:
        if not isinstance(error, RefusedError):
            return await _defect(request, error)
        name = getattr(request.state, "name", "")
        await run_in_threadpool(enrolment.refusals.note, error, request.url.path, name, _address(request))
        headers = {"WWW-Authenticate": 'Basic realm="join token"'} if error.status == 401 else {}
        if error.retry_after_s is not None:
            headers["Retry-After"] = f"{error.retry_after_s:.0f}"
        return PlainTextResponse(f"{error}\n", error.status, headers)

    return Starlette(
        routes=[
            Route(est.HEALTH, health),
            Route(est.CACERTS, cacerts),
            Route(est.ENROLL, enroll, methods=["POST"]),
            Route(est.REENROLL, reenroll, methods=["POST"]),
        ],
        exception_handlers={
            RefusedError: refuse,
            RetryableError: _away,
            OperationalError: _away,
            TimeoutError: _away,
            Exception: _defect,
        },
    )


async def _body(request: Request) -> bytes:
    """The request's DER, within limits."""
    data = bytearray()
    async for part in request.stream():
        data += part
        if len(data) > est.MAX_BODY_BYTES:
            raise RefusedError(413, f"the body is over {est.MAX_BODY_BYTES} bytes", proven=False)
    try:
        return est.from_body(bytes(data))
    except RejectedError as error:
        raise RefusedError(400, str(error), proven=False) from None


def _address(request: Request) -> str:
    return request.client.host if request.client is not None else ""


async def _away(request: Request, error: Exception) -> Response:
    log.error("enrolment_not_now", exc_info=error, extra={"path": request.url.path})
    return PlainTextResponse("the hub cannot do this now: ask again in a minute\n", 503, {"Retry-After": "60"})


async def _defect(request: Request, error: Exception) -> Response:
    log.error("enrolment_failed", exc_info=error, extra={"path": request.url.path})
    return PlainTextResponse("the hub failed at this; its log says why\n", 500)
