"""How a site stands with its hub's authority: what its certificate says, and what lies there to join with.

Read from the files, beside a running site or without one; changes nothing.
"""

from dataclasses import dataclass
from typing import Literal

from edge_agent.config import Site
from edge_agent.enrol.identity import IdentityFolder, print_of
from edge_sync.enrol.certificate import load_pem, serial_text, to_us
from edge_sync.mqtt import refused

_ANSWER_S = 3.0
"""How long a broker may take to answer."""

ASK_ANEW = "ask the operator; a new kit or token makes this the site again"
"""What to do about a certificate that is refused."""

State = Literal["none", "not_begun", "valid", "due", "ended"]
"""By this machine's clock. ``due``: to be renewed, and good for longer."""

TokenState = Literal["none", "new", "used"]


@dataclass(frozen=True, slots=True)
class CertificateStanding:
    """Times are UTC microseconds; None where there is no certificate."""

    state: State
    token: TokenState
    """``used``: this certificate came of it. ``none``: no file."""
    serial: str | None = None
    """Hex, as the hub's lists have it."""
    begins_us: int | None = None
    renew_us: int | None = None
    """None too where somebody else puts the certificate there."""
    ends_us: int | None = None


def certificate_standing(site: Site, now_us: int) -> CertificateStanding | None:
    """None where this site's hub knows it by a password. Raises `ConfigError`, `RejectedError`, `OSError`."""
    hub = site.config.hub
    if hub is None or (hub.enrol is None and hub.cert_file is None):
        return None
    folder = IdentityFolder(site.identity, site.config.site) if hub.enrol is not None else None
    held = folder.held() if folder is not None else None
    token = _token(site, held.token if held is not None else "")
    file = site.broker().cert_file
    if file is None or not file.exists() or (folder is not None and held is None):
        return CertificateStanding("none", token)
    found = load_pem(file.read_bytes())[0]
    begins_us, ends_us = to_us(found.not_valid_before_utc), to_us(found.not_valid_after_utc)
    state: State = "valid"
    if now_us >= ends_us:
        state = "ended"
    elif now_us < begins_us:
        state = "not_begun"
    elif held is not None and now_us >= held.renew_us:
        state = "due"
    renew_us = held.renew_us if held is not None else None
    return CertificateStanding(state, token, serial_text(found.serial_number), begins_us, renew_us, ends_us)


def broker_refusal(site: Site) -> str | None:
    """Why the hub's broker refuses the certificate of this site; None where it takes it, or nobody answers.

    It waits 3 s for a broker that takes it. Raises `ConfigError`.
    """
    try:
        why = refused(site.broker(), _ANSWER_S)
    except OSError:
        return None
    return f"the hub's broker refuses it ({why}): it was revoked, or another machine is this site now" if why else None


def _token(site: Site, used: str) -> TokenState:
    file = site.path(site.config.hub.join_token_file) if site.config.hub is not None else None
    if file is None or not file.exists():
        return "none"
    return "used" if print_of(file.read_text()) == used else "new"
