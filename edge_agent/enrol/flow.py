"""Joining and renewing, step by step. Each may be cut short anywhere and be begun again: it goes on with the same key.

Nothing is written before it is certain that the hub is the right one, and what is used changes in one step at the end.
"""

import random
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509

from edge_agent.enrol.client import EstClient
from edge_agent.enrol.identity import IdentityFolder, Pair, print_of
from edge_agent.enrol.schedule import Held
from edge_models.errors import ConfigError, RejectedError
from edge_sync.enrol.certificate import load_pem, own_chain, read_identity, to_pem
from edge_sync.enrol.request import make_request, new_key, public_half
from edge_sync.enrol.token import JoinToken, parse_token


@dataclass(frozen=True, slots=True)
class NotDue:
    """The certificate is good for longer, by this clock: the hub's, or else this machine's."""

    time_us: int


def join(client: EstClient, folder: IdentityFolder, site: str, token_text: str, journal_key: str | None) -> Held:
    """Get the first certificate, or one in place of what there is, with a join token.

    `journal_key`: as `journal_public` has it; the hub binds it to the site.
    Raises `ConfigError` for a token that is none or another site's, `RejectedError`, `RetryableError`.
    """
    token = _token(token_text, site)
    with folder.locked():
        root = client.root(token.pin)
        key = _next_key(folder)
        answer = client.enroll(root, token, make_request(key, site, journal_key))
        return _take(folder, key, answer, root, site, print_of(token_text))


def renew(
    client: EstClient,
    folder: IdentityFolder,
    site: str,
    now_us: Callable[[], int],
    force: bool = False,
) -> Held | NotDue:
    """Get the next certificate by showing the one there is, if it is due by the hub's clock or by `force`.

    Raises `ConfigError` where there is none or it is damaged, `RejectedError`, `RetryableError`.
    """
    with folder.locked():
        held = folder.held()
        if held is None:
            raise ConfigError(f"site {site} has no certificate to renew: join first")
        root = _root(folder)
        time_us = client.time_us(folder)
        if time_us is None:
            time_us = now_us()
        if not force and held.begins_us <= time_us < held.renew_us:
            return NotDue(time_us)
        key = _next_key(folder)
        answer = client.reenroll(folder, make_request(key, site))
        return _take(folder, key, answer, root, site, held.token)


def journal_public(file: Path) -> str:
    """The public half, hex, of the key that signs the journal's checkpoints, made where there is none.

    Raises `ConfigError`, `OSError`.
    """
    from edge_agent.memory.checkpoint import SigningKey  # noqa: PLC0415 - a try that renews needs nothing of it

    return SigningKey(file).public


def _token(text: str, site: str) -> JoinToken:
    try:
        token = parse_token(text)
    except RejectedError as error:
        raise ConfigError(str(error)) from None
    if token.group is None and token.name != site:
        raise ConfigError(f"the join token is for site {token.name!r}, and this is {site!r}")
    return token


def _next_key(folder: IdentityFolder) -> bytes:
    """The key that was asked with before, or a new one; each certificate has a key of its own."""
    key = folder.next_key()
    if key is not None:
        try:
            public_half(key)
        except ConfigError:  # damaged: whatever was issued for it is of no use
            key = None
    if key is None:
        key = new_key()
        folder.keep_key(key)
    return key


def _take(
    folder: IdentityFolder, key: bytes, answer: list[x509.Certificate], root: x509.Certificate, site: str, token: str
) -> Held:
    chain = own_chain(answer, root, site, public_half(key))
    found = read_identity(chain[0])
    held = Held(found.begins_us, found.renew_us(random.random()), found.ends_us, token)  # noqa: S311 - spreads load
    folder.take(Pair(key, to_pem(chain), to_pem([root])), held)
    return held


def _root(folder: IdentityFolder) -> x509.Certificate:
    try:
        return load_pem(folder.ca.read_bytes())[0]
    except (OSError, RejectedError) as error:
        raise ConfigError(f"{folder.path} is damaged ({error}): join with a new token") from None
