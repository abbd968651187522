"""A client of the hub's HTTP API, for commands: one request, one answer, one readable error."""

import http.client
import json
import os
import ssl
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import urlsplit

import typer

from edge_models.errors import ConfigError, RejectedError, RetryableError
from edge_sync.mqtt import is_loopback

TIMEOUT_S = 30.0

MAX_ANSWER_BYTES = 64 * 1024 * 1024

HUB_VARIABLE, TOKEN_VARIABLE = "EDGE_HUB", "EDGE_HUB_TOKEN_FILE"

_OPERATOR = "operator.token"
"""In a hub's folder: its token."""

_CERTIFICATES = "An authority of your own for the API: SSL_CERT_FILE=FILE"
"""Source: OpenSSL's own variable, which Python's default context reads."""

_NO_TLS = ("WRONG_VERSION_NUMBER", "RECORD_LAYER_FAILURE", "HTTP_REQUEST", "UNKNOWN_PROTOCOL", "PACKET_LENGTH_TOO_LONG")
"""What OpenSSL calls an answer that is none of TLS."""

HubOption = Annotated[
    str | None, typer.Option("--hub", metavar="URL", help=f"The hub's HTTP API.  [env var: {HUB_VARIABLE}]")
]
TokenOption = Annotated[
    Path | None,
    typer.Option("--token-file", metavar="FILE", help=f"The operator's token.  [env var: {TOKEN_VARIABLE}]"),
]
HubDirOption = Annotated[
    Path | None, typer.Option("--hub-dir", metavar="DIR", help="Instead of both: the folder of a hub on this machine.")
]


class HubRefusal(RejectedError):
    """The hub says no; `status` is HTTP's."""

    def __init__(self, reason: str, status: int) -> None:
        super().__init__(f"the hub refused: {reason}")
        self.status = status


class _NoRedirects(urllib.request.HTTPRedirectHandler):
    """A hub does not redirect, and its token is for nobody else."""

    def redirect_request(self, *_: Any, **__: Any) -> None:
        return None


class HubClient:
    """One hub, as the holder of one token sees it."""

    def __init__(self, url: str, token: str) -> None:
        """`url` as in ``https://hub.example``. Raises `ConfigError` where the token would travel in clear."""
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ConfigError(f"hub {url!r}: write https://HOST (or http://127.0.0.1:8600 on one machine)")
        if parts.scheme == "http" and not is_loopback(parts.hostname):
            raise ConfigError(f"hub {url!r}: a token may not travel in clear: use https://")
        self._url, self._token = url.rstrip("/"), token
        # Without proxies: a token for this machine must not be shown to one.
        self._opener = urllib.request.build_opener(urllib.request.ProxyHandler({}), _NoRedirects)

    def request(
        self,
        method: str,
        path: str,
        *,
        json: Any = None,
        body: bytes | Path | None = None,
        timeout_s: float = TIMEOUT_S,
    ) -> Any:
        """The JSON answer; a `body` that is a path is that file's bytes.

        Raises `HubRefusal`, a `RejectedError`, with the hub's reason, `ConfigError` for a token it does not know and
        for what answers and can't be the API, `RetryableError` where no answer can be had.
        """
        if isinstance(body, Path):
            try:
                with body.open("rb") as file:
                    return self._ask(method, path, file, "application/octet-stream", body.stat().st_size, timeout_s)
            except OSError as error:
                raise ConfigError(f"{body}: {error.strerror}") from None
        if json is not None:
            body = _dump(json)
        kind = "application/octet-stream" if json is None else "application/json"
        return self._ask(method, path, body, kind, len(body or b""), timeout_s)

    def download(self, method: str, path: str, target: Path, json: Any = None, timeout_s: float = TIMEOUT_S) -> int:
        """Write the answer's bytes into a new file; returns how many they were. Raises as `request`."""
        body = b"" if json is None else _dump(json)
        size = 0
        try:
            with (
                target.open("xb") as file,
                self._open(method, path, body, "application/json", len(body), timeout_s) as answer,
            ):
                while piece := answer.read(1024 * 1024):
                    size += file.write(piece)
        except FileExistsError:
            raise ConfigError(f"{target} is there already") from None
        return size

    def _ask(self, method: str, path: str, body: Any, kind: str, size: int, timeout_s: float) -> Any:
        with self._open(method, path, body, kind, size, timeout_s) as answer:
            return _load(answer.read(MAX_ANSWER_BYTES))

    @contextmanager
    def _open(
        self, method: str, path: str, body: Any, kind: str, size: int, timeout_s: float
    ) -> Iterator[http.client.HTTPResponse]:
        headers = {"authorization": f"Bearer {self._token}", "content-type": kind, "content-length": str(size)}
        request = urllib.request.Request(  # noqa: S310 - the scheme was checked
            self._url + path, body, headers, method=method
        )
        try:
            with self._opener.open(request, timeout=timeout_s) as answer:
                yield answer
        except urllib.error.HTTPError as error:
            with error:
                reason = _reason(error.read(64 * 1024)) or error.reason
            if error.code == 401:
                raise ConfigError(f"the hub at {self._url} does not know this token") from None
            if error.code >= 500:
                raise RetryableError(f"the hub at {self._url} failed: {reason}") from None
            raise HubRefusal(reason, error.code) from None
        except (OSError, http.client.HTTPException) as error:
            raise _no_answer(self._url, error.reason if isinstance(error, urllib.error.URLError) else error) from None


def connect(hub: str | None, token_file: Path | None, hub_dir: Path | None) -> HubClient:
    """The client for what a command was given: a URL and a token file, or the folder of a hub on this machine.

    What is not given is taken from the variables EDGE_HUB and EDGE_HUB_TOKEN_FILE. Raises `ConfigError`, and
    `RetryableError` where the hub of this folder does not run.
    """
    if hub_dir is not None:
        hub = hub or _announced(hub_dir)
        token_file = token_file or hub_dir / _OPERATOR
    hub = hub or os.environ.get(HUB_VARIABLE)
    if hub is None:
        raise ConfigError(f"which hub? Give --hub URL, or --hub-dir DIR, or set {HUB_VARIABLE}")
    return HubClient(hub, read_token(token_file))


def _announced(hub_dir: Path) -> str:
    """Where the hub of this folder says that it listens. Raises as `connect`."""
    described = hub_dir / "hub.json"
    try:
        return str(_load(described.read_bytes())["http"])
    except FileNotFoundError:
        if not (hub_dir / _OPERATOR).exists():
            raise ConfigError(f"--hub-dir {hub_dir}: is no hub's folder: no {_OPERATOR} is in it") from None
        raise RetryableError(
            f"the hub in {hub_dir} does not run: start it (edge-agent hub serve {hub_dir}), then try again"
        ) from None
    except OSError as error:
        raise ConfigError(f"{described}: {error.strerror}") from None


def _no_answer(url: str, cause: object) -> ConfigError | RetryableError:
    """Why a request had no answer that could be read, and what to do."""
    if isinstance(cause, ssl.SSLCertVerificationError):
        why = cause.verify_message or cause.reason
        return ConfigError(
            f"what answers at {url} shows a certificate that does not count on this machine ({why}): is that the hub's "
            f"API? Where sites join (hub serve --enrol) is another address. {_CERTIFICATES}"
        )
    if isinstance(cause, ssl.SSLError) and cause.reason in _NO_TLS:
        return ConfigError(f"what answers at {url} speaks no TLS: is that the hub's API? hub serve says where it is")
    if isinstance(cause, http.client.BadStatusLine) and not isinstance(cause, ConnectionError):
        return ConfigError(f"what answers at {url} speaks no HTTP: is that the hub's API? hub serve says where it is")
    why = getattr(cause, "strerror", None) or str(cause) or type(cause).__name__
    return RetryableError(f"the hub at {url} does not answer: {why}. Does it run, and there? Then try again")


def read_token(token_file: Path | None) -> str:
    """The token in this file, or in the one that EDGE_HUB_TOKEN_FILE names. Raises `ConfigError`."""
    named = os.environ.get(TOKEN_VARIABLE)
    file = token_file or (Path(named) if named else None)
    if file is None:
        raise ConfigError(f"who asks the hub? Name the operator's token with --token-file, or set {TOKEN_VARIABLE}")
    try:
        token = file.read_text("ascii").strip()
    except OSError as error:
        raise ConfigError(f"token file {file}: {error.strerror}") from None
    except UnicodeDecodeError:
        token = ""
    if not token or len(token.split()) > 1:
        raise ConfigError(f"token file {file}: wanted one token, as in the hub's operator.token")
    return token


def _dump(value: Any) -> bytes:
    return json.dumps(value, separators=(",", ":")).encode()


def _load(data: bytes) -> Any:
    try:
        return json.loads(data) if data else {}
    except ValueError:
        raise RetryableError("the hub's answer is no JSON: is this really a hub?") from None


def _reason(data: bytes) -> str:
    try:
        return str(json.loads(data)["error"])
    except (ValueError, KeyError, TypeError):
        return ""
