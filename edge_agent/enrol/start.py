"""Enrolment at a site's start, before it has a memory: what was cut short is settled, and a new disk joins first.

First, because a site that lost its disk asks the hub for what it remembers, and without a certificate it can't.
"""

import logging
from collections.abc import Callable

from edge_agent.config import Site
from edge_agent.enrol.attempt import Asked, Failed, StoppedError, attempt
from edge_agent.enrol.identity import IdentityFolder
from edge_agent.enrol.schedule import Held
from edge_agent.memory.checkpoint import KEY_FILE, SigningKey
from edge_models.errors import KitError

log = logging.getLogger(__name__)

JOIN_FIRST_S = 10.0
"""The longest a start without a memory waits for a certificate; later tries are made while agents work."""


def asked_by(site: Site) -> Asked | None:
    """Who asks for a certificate, where, and with what; None where the site is not to enrol."""
    hub = site.config.hub
    if hub is None or hub.enrol is None:
        return None
    return Asked(site.config.site, hub.enrol, site.identity, site.path(hub.join_token_file), site.data / KEY_FILE)


def settle(site: Site, stopping: Callable[[], bool]) -> Held | None:
    """Leave the identity as it has to be before a site starts; what came, where the site joined just now.

    Never in the way of a start: where there is no certificate, one comes later.
    """
    asked = asked_by(site)
    if asked is None:
        return None
    folder = IdentityFolder(asked.identity, asked.site)
    try:
        if not asked.journal_key.exists():  # now, while no other thread makes one
            SigningKey(asked.journal_key)
        folder.settle()
        if folder.held() is not None or asked.token_file is None or (site.data / "memory.db").exists():
            return None
        outcome = attempt(asked, "join", stopping, JOIN_FIRST_S)
    except StoppedError:
        return None
    except (KitError, OSError) as error:
        log.warning("enrolment_not_ready", extra={"reason": str(error)})
        return None
    if isinstance(outcome, Held):
        log.info("joined", extra={"ends_us": outcome.ends_us})
        return outcome
    if isinstance(outcome, Failed):
        log.warning("join_failed", extra={"reason": outcome.reason})
    return None
