"""The hub's enrolment listener as a site uses it: EST over HTTPS, by `http.client` and `ssl` alone."""

import http.client
import ssl
from collections.abc import Mapping
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from pathlib import Path

from cryptography import x509

from edge_agent.enrol.address import enrol_address
from edge_agent.enrol.identity import IdentityFolder
from edge_models.errors import ConfigError, RejectedError, RetryableError
from edge_sync.enrol.certificate import pinned_root, to_pem
from edge_sync.enrol.clockless import leave_time_out
from edge_sync.enrol.est import (
    BASE64,
    CACERTS,
    ENROLL,
    HEALTH,
    MAX_ANSWER_BYTES,
    REENROLL,
    REQUEST_TYPE,
    to_body,
    unpack_certificates,
)
from edge_sync.enrol.token import JoinToken, basic

TIMEOUT_S = 20.0
"""For each step of a connection: a link by satellite needs a few seconds."""

BUSY = (408, 425, 429, 500, 502, 503, 504)
"""Answers that say: not now."""

MAX_WAIT_S = 3_600.0
"""The longest `Retry-After` that is believed."""


class RefusedError(RejectedError):
    """The hub itself said no; `status` is its HTTP status."""

    def __init__(self, message: str, status: int) -> None:
        super().__init__(message)
        self.status = status


@dataclass(frozen=True, slots=True)
class _Answer:
    status: int
    headers: http.client.HTTPMessage
    body: bytes


class EstClient:
    """Every call is a connection of its own. Calls raise `RetryableError`, `RejectedError`; of these `RefusedError`."""

    def __init__(self, url: str) -> None:
        """`url`: ``https://HOST:8443``. Raises `ConfigError`."""
        try:
            self._host, self._port = enrol_address(url)
        except ValueError as error:
            raise ConfigError(f"hub.enrol {url!r}: {error}") from None
        self.url = url

    def root(self, pin: str) -> x509.Certificate:
        """The root that the pin names. Whoever answers may send what it likes: the pin decides."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE  # nothing secret goes out, and what comes in has to hash to the pin
        answer = self._ask(context, "GET", CACERTS)
        if answer.status != 200:
            raise self._error(answer)
        try:
            return pinned_root(unpack_certificates(answer.body), pin)
        except RejectedError as error:
            raise RejectedError(f"{self.url}: {error}") from None

    def enroll(self, root: x509.Certificate, token: JoinToken, request: bytes) -> list[x509.Certificate]:
        """The certificates that the hub answers to a request (PKCS#10, DER) with this token."""
        return self._certificates(_verifying(to_pem([root]).decode()), ENROLL, request, {"Authorization": basic(token)})

    def reenroll(self, identity: IdentityFolder, request: bytes) -> list[x509.Certificate]:
        """What it answers to who shows his certificate, run out or not."""
        return self._certificates(_showing(identity), REENROLL, request, {})

    def time_us(self, identity: IdentityFolder) -> int | None:
        """The hub's clock, UTC microseconds, or None where it does not say; it is verified that it is the hub."""
        answer = self._ask(_showing(identity), "GET", HEALTH)
        if answer.status != 200:
            raise self._error(answer)
        try:
            return int(parsedate_to_datetime(answer.headers.get("Date", "")).timestamp() * 1e6)
        except (ValueError, TypeError, OverflowError):
            return None

    def _certificates(
        self, context: ssl.SSLContext, path: str, request: bytes, headers: Mapping[str, str]
    ) -> list[x509.Certificate]:
        answer = self._ask(context, "POST", path, to_body(request), {"Content-Type": REQUEST_TYPE, **BASE64, **headers})
        if answer.status != 200:
            raise self._error(answer)
        return unpack_certificates(answer.body)

    def _ask(
        self,
        context: ssl.SSLContext,
        method: str,
        path: str,
        body: bytes | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> _Answer:
        connection = http.client.HTTPSConnection(self._host, self._port, timeout=TIMEOUT_S, context=context)
        try:
            connection.request(method, path, body, {"Connection": "close", **(headers or {})})
            answer = connection.getresponse()
            return _Answer(answer.status, answer.headers, answer.read(MAX_ANSWER_BYTES + 1))
        except ssl.SSLCertVerificationError as error:
            why = error.verify_message or error.reason
            raise RejectedError(f"{self.url} is not this site's hub: its certificate does not count: {why}") from None
        except ssl.SSLError as error:
            raise RetryableError(f"{self.url}: TLS fails: {error.reason or error}") from None
        except OSError as error:  # a name that is not known and a time that is up, too
            raise RetryableError(f"no answer from {self.url}: {error.strerror or error}") from None
        except http.client.HTTPException as error:
            raise RetryableError(f"{self.url} answers no HTTP: {type(error).__name__}") from None
        finally:
            connection.close()

    def _error(self, answer: _Answer) -> RejectedError | RetryableError:
        """What a status other than 200 means, with the hub's own words."""
        lines = answer.body[:1_000].decode(errors="replace").splitlines()
        said = "".join(char if char.isprintable() else " " for char in (lines[0] if lines else ""))[:300].strip()
        said = said or f"it answers {answer.status}"
        if answer.status in BUSY:
            wait = answer.headers.get("Retry-After", "")
            return RetryableError(f"{self.url}: {said}", min(float(wait), MAX_WAIT_S) if wait.isdecimal() else 5.0)
        return RefusedError(f"{self.url}: {said}", answer.status)


def _verifying(root: str) -> ssl.SSLContext:
    """Of a client that believes this root (PEM) alone, whatever the time."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.load_verify_locations(cadata=root)
    leave_time_out(context)
    return context


def _showing(identity: IdentityFolder) -> ssl.SSLContext:
    """Of a client that believes this identity's root and shows its certificate."""
    try:
        context = _verifying(identity.ca.read_text())
        context.load_cert_chain(identity.certificate, identity.key)
    except (OSError, ValueError) as error:  # ssl.SSLError is an OSError
        raise _damaged(identity.path, error) from None
    return context


def _damaged(folder: Path, error: Exception) -> ConfigError:
    return ConfigError(f"{folder} is damaged ({error}): join with a new token")
