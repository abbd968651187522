"""Chunks over HTTPS, for sites whose link is better used so: the same wishes, the same verification, another road.

A thread of its own takes each wish to the hub's API and hands what comes on as if it had come by MQTT.
"""

import base64
import http.client
import logging
import ssl
import threading
import time
import urllib.error
import urllib.request
from collections import OrderedDict
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.parse import urlsplit

from edge_models.errors import ConfigError, RejectedError
from edge_sync.chunks import chunk_message
from edge_sync.documents import Want, load
from edge_sync.mqtt import is_loopback
from edge_sync.release import CHUNK_SIZE_BYTES, MAX_ARTIFACT_BYTES

log = logging.getLogger(__name__)

TIMEOUT_S = 30.0

PAUSE_S = 5.0
"""After a hub that did not answer: the wish comes again, sooner than that even."""

ROOM_S = 0.05
"""While the update thread has enough to verify."""


class _NoRedirects(urllib.request.HTTPRedirectHandler):
    """A hub does not redirect, and the site's password is for nobody else."""

    def redirect_request(self, *_: object, **__: object) -> None:
        return None


class HttpsChunks:
    """`want` may be called from any thread; a newer wish for the same artifact takes an older one's place."""

    def __init__(
        self, url: str, site: str, password: str, ca_file: Path | None, chunk: Callable[[bytes], bool]
    ) -> None:
        """`chunk` takes a chunk message, or says that it has no room. Raises `ConfigError`."""
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ConfigError(f"hub.https {url!r}: write https://HOST")
        if parts.scheme == "http" and not is_loopback(parts.hostname):
            raise ConfigError(f"hub.https {url!r}: a password may not travel in clear: use https://")
        try:
            context = ssl.create_default_context(cafile=None if ca_file is None else str(ca_file))
        except OSError as error:
            raise ConfigError(f"hub.ca_file {ca_file}: {error.strerror or error}") from None
        self._opener = urllib.request.build_opener(
            urllib.request.ProxyHandler({}), _NoRedirects, urllib.request.HTTPSHandler(context=context)
        )
        self._url, self._chunk = url.rstrip("/"), chunk
        self._authorization = "Basic " + base64.b64encode(f"{site}:{password}".encode()).decode()
        self._wishes: OrderedDict[str, Want] = OrderedDict()
        self._news = threading.Condition()
        self._closing = False
        self._said: str | None = None
        self._thread = threading.Thread(target=self._run, name="https", daemon=True)

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def close(self) -> None:
        """Stop; what is on its way is left."""
        with self._news:
            self._closing = True
            self._news.notify()

    def want(self, document: bytes) -> None:
        """A wish, as it would go to the hub by MQTT."""
        want = load(Want, document)
        with self._news:
            self._wishes[want.digest] = want
            self._news.notify()

    def _run(self) -> None:
        while (want := self._next()) is not None:
            try:
                for first, last in want.missing:
                    for message in self._get(want, first, last):
                        self._hand_on(message)
                self._said = None
            except (OSError, http.client.HTTPException, RejectedError) as error:
                reason = str(getattr(error, "reason", error))
                if reason != self._said:  # one line is enough while the hub is away
                    log.warning("https_failed", extra={"digest": want.digest, "reason": reason})
                self._said = reason
                with self._news:
                    self._news.wait_for(lambda: self._closing, PAUSE_S)
            except Exception:  # the thread must live: what did not come is asked for again
                log.exception("https_crashed")

    def _next(self) -> Want | None:
        with self._news:
            self._news.wait_for(lambda: self._wishes or self._closing)
            return None if self._closing else self._wishes.popitem(last=False)[1]

    def _get(self, want: Want, first: int, last: int) -> Iterator[bytes]:
        """The chunks of one range, one after the other."""
        span = f"bytes={first * CHUNK_SIZE_BYTES}-{(last + 1) * CHUNK_SIZE_BYTES - 1}"
        request = urllib.request.Request(  # noqa: S310 - the scheme was checked
            f"{self._url}/api/v1/artifacts/{want.digest}/bytes",
            headers={"authorization": self._authorization, "range": span},
        )
        with self._opener.open(request, timeout=TIMEOUT_S) as answer:
            size = _whole_size(answer, first)
            count = -(-size // CHUNK_SIZE_BYTES)
            for index in range(first, min(last + 1, count)):
                began = time.monotonic()
                data = answer.read(CHUNK_SIZE_BYTES)
                if not data or self._closing:
                    return
                yield chunk_message(want.digest, index, count, size, data)
                if want.bytes_per_s:
                    time.sleep(max(0.0, len(data) / want.bytes_per_s - (time.monotonic() - began)))

    def _hand_on(self, message: bytes) -> None:
        while not self._closing and not self._chunk(message):
            time.sleep(ROOM_S)


def _whole_size(answer: http.client.HTTPResponse, first: int) -> int:
    """Of the artifact, as the answer's Content-Range says. Raises `RejectedError` for another answer."""
    said = answer.headers.get("content-range", "")
    span, _, whole = said.removeprefix("bytes ").partition("/")
    begins = span.partition("-")[0]
    if answer.status != 206 or not whole.isdigit() or begins != str(first * CHUNK_SIZE_BYTES):
        raise RejectedError(f"the hub answers {answer.status} {said[:80]!r} to a range")
    if (size := int(whole)) > MAX_ARTIFACT_BYTES:
        raise RejectedError(f"the artifact has {size} bytes, the most is {MAX_ARTIFACT_BYTES}")
    return size
