"""The local API's routes: who may ask what, and what is answered. No I/O here; `conversation` asks it."""

import base64
import binascii
import hmac
from collections.abc import Callable, Iterable
from functools import lru_cache, partial
from importlib.metadata import version

from edge_agent.api import oip, page
from edge_agent.api.compression import ENCODINGS, decompress
from edge_agent.api.limits import Limits
from edge_agent.api.messages import JSON_TYPE, Fields, Handler, Head, Refusal, Reply, Slow, json_reply
from edge_agent.api.metrics import CONTENT_TYPE, Family, inference_families, render
from edge_agent.api.status import Status
from edge_agent.inference.model import Model
from edge_agent.inference.registry import Models
from edge_models.errors import RejectedError
from edge_sync.mqtt import is_loopback

QUICK_S = 0.002
"""A request that surely takes less than this is answered at once; of longer ones only a few are at work together."""

OPEN_PATHS = frozenset({"/healthz", "/v2/health/live", "/v2/health/ready"})
"""Answered without a token: probes have none, and the answer is one bit."""


class App:
    """The routes. Calling it finds the handler of a request whose header fields have come; raises `Refusal`."""

    def __init__(
        self,
        models: Models,
        status: Callable[[], Status],
        metrics: Callable[[], Iterable[Family]],
        token: str | None,
        limits: Limits,
    ) -> None:
        self._models = models
        self._status = status
        self._metrics = metrics
        self._token = None if token is None else token.encode()
        self._limits = limits

    def __call__(self, head: Head) -> Handler:
        """The handler of a request. Raises `Refusal`."""
        self._authorize(head)
        parts = head.path.strip("/").split("/")
        if parts[:2] == ["v2", "models"] and len(parts) > 2:
            return self._model(head, parts[2], parts[3:])
        match parts:
            case [""]:
                return _get(head, lambda: Slow(partial(self._page, head.fields)))
            case ["healthz"] | ["v2", "health", "live"]:
                return _get(head, lambda: json_reply({"live": True}))
            case ["v2", "health", "ready"]:
                return _get(head, self._ready)
            case ["v2"]:
                return _get(head, _server)
            case ["metrics"]:
                return _get(head, lambda: Slow(self._render_metrics))
            case _:
                raise Refusal(404, f"there is nothing at {head.path[:100]!r}")

    def _model(self, head: Head, name: str, rest: list[str]) -> Handler:
        """``{name}[/versions/{version}][/ready|/infer]``."""
        model = self._models.get(name)
        if model is None:
            names = ", ".join(self._models.names()) or "none"
            raise Refusal(404, f"no model is named {name[:100]!r} here (there are: {names})")
        if rest[:1] == ["versions"]:
            wanted, rest = "".join(rest[1:2]), rest[2:]
            if wanted != model.contract.version:
                raise Refusal(404, f"model {name!r} is here in version {model.contract.version!r} only")
        match rest:
            case []:
                return _get(head, lambda: json_reply(oip.metadata(name, model)))
            case ["ready"]:
                return _get(head, lambda: json_reply({"name": name, "ready": True}))
            case ["infer"]:
                return self._infer(head, name, model)
            case _:
                raise Refusal(404, f"a model has no {'/'.join(rest)[:100]!r}")

    def _infer(self, head: Head, name: str, model: Model) -> Handler:
        """Inference only: nothing is decided, and nothing is journalled."""
        if head.method != "POST":
            raise _not_allowed(head, b"POST")
        if b"content-length" not in head.fields and b"transfer-encoding" not in head.fields:
            raise Refusal(411, "a request needs Content-Length")
        encoding = head.fields.get(b"content-encoding", b"identity").decode("latin-1").lower()
        if encoding not in ENCODINGS and encoding != "identity":
            raise Refusal(415, f"content-encoding {encoding[:40]!r}: wanted gzip, deflate or none", close=True)
        header_bytes = _inference_header(head.fields)

        def handle(body: bytes) -> Reply | Slow:
            work = partial(self._run, name, model, body, encoding, header_bytes)
            most_s = oip.most_samples(model.contract, len(body)) * model.sample_s
            return work() if encoding == "identity" and most_s < QUICK_S else Slow(work)

        return handle

    def _run(self, name: str, model: Model, body: bytes, encoding: str, header_bytes: int | None) -> Reply:
        try:
            with self._models.measured(name):
                if encoding != "identity":
                    body = decompress(body, encoding, self._limits.body_bytes)
                request = oip.decode(model.contract, body, header_bytes, self._limits)
                answer, json_bytes = oip.encode(name, model, request, model.run(request.inputs))
        except RejectedError as error:
            raise Refusal(400, str(error)) from None
        if json_bytes is None:
            return Reply(200, answer, (JSON_TYPE,))
        header = (b"inference-header-content-length", b"%d" % json_bytes)
        return Reply(200, answer, ((b"content-type", b"application/octet-stream"), header))

    def _ready(self) -> Reply:
        ready = bool(self._models.names())
        return json_reply({"ready": ready}, 200 if ready else 503)

    def _page(self, fields: Fields) -> Reply:
        status = self._status()
        if fields.get(b"accept", b"").startswith(b"application/json"):
            return json_reply(status)
        return Reply(200, page.render(status), page.FIELDS)

    def _render_metrics(self) -> Reply:
        families = (*inference_families(self._models.stats()), *self._metrics())
        return Reply(200, render(families), ((b"content-type", CONTENT_TYPE),))

    def _authorize(self, head: Head) -> None:
        """Raise `Refusal` unless the request shows the token or, where there is none, was meant for this machine."""
        if head.path in OPEN_PATHS:
            return
        if self._token is None:
            # A page from elsewhere can make a browser on this machine ask, under a name that resolves to it.
            if not _is_this_machine(head.fields.get(b"host", b"localhost")):
                raise Refusal(403, "the Host field does not name this machine", close=True)
        elif not hmac.compare_digest(_shown_token(head.fields), self._token):
            challenge = (b"www-authenticate", b'Bearer, Basic realm="edge-agent", charset="UTF-8"')
            raise Refusal(401, "wanted the site's token: Authorization: Bearer TOKEN", fields=(challenge,), close=True)


def _get(head: Head, answer: Callable[[], Reply | Slow]) -> Handler:
    """A handler that has no use for a body."""
    if head.method not in ("GET", "HEAD"):
        raise _not_allowed(head, b"GET, HEAD")
    return lambda _: answer()


def _not_allowed(head: Head, allowed: bytes) -> Refusal:
    message = f"{head.path[:100]} takes {allowed.decode()}, not {head.method[:20]}"
    return Refusal(405, message, fields=((b"allow", allowed),), close=True)


@lru_cache(maxsize=64)
def _is_this_machine(host: bytes) -> bool:
    """Whether a Host field, with or without a port, can only mean this machine."""
    text = host.decode("latin-1")
    name = text if text.endswith("]") or ":" not in text else text.rpartition(":")[0]
    return is_loopback(name.strip("[]"))


def _shown_token(fields: Fields) -> bytes:
    """The token a request shows: as a bearer, or as the password that a browser asks a person for."""
    scheme, _, value = fields.get(b"authorization", b"").partition(b" ")
    if scheme.lower() == b"bearer":
        return value.strip()
    if scheme.lower() == b"basic":
        try:
            return base64.b64decode(value, validate=True).partition(b":")[2]
        except binascii.Error:
            return b""
    return b""


def _inference_header(fields: Fields) -> int | None:
    value = fields.get(b"inference-header-content-length")
    if value is None:
        return None
    if not value.isdigit() or len(value) > 12:
        raise Refusal(400, "Inference-Header-Content-Length is not a number of bytes", close=True)
    return int(value)


def _server() -> Reply:
    return json_reply(
        {"name": "edge-agent", "version": version("edge-agent-kit"), "extensions": ["binary_tensor_data"]}
    )
