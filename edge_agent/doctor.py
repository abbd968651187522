"""What is wrong with a site, and what to do about it. Changes nothing; works beside a running site."""

import os
import shutil
import socket
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Literal
from urllib.parse import urlsplit

from edge_agent.brain import deploy
from edge_agent.config import HubLink, Site
from edge_agent.enrol.address import enrol_address
from edge_agent.memory.damage import read_mark
from edge_agent.memory.lock import is_locked
from edge_agent.memory.outbox import streams
from edge_agent.memory.queries import open_intents
from edge_agent.memory.rescue import set_aside
from edge_agent.memory.schema import reading
from edge_agent.memory.splice import DAMAGED
from edge_agent.memory.wear import recent
from edge_agent.supervisor import check_source
from edge_agent.update.slots import read_refused, read_slot
from edge_models.digests import Digest, digest_of
from edge_models.errors import ConfigError, KitError, RejectedError
from edge_sync.mqtt import foreign
from edge_sync.release import Release, resolve
from edge_sync.rows import ERASED, EXPIRED

CONNECT_S = 3.0
"""How long a broker may take to answer."""

_MEND_THE_WAY = "check cable, modem and firewall; the site goes on without it"

_NOT_OURS = "see `hub` in the site file: its addresses; a hub with a new authority wants a new kit"

_LATE_US = 10 * 86_400_000_000
"""So long after it was due, a certificate that was not renewed is told of: a site may be without its hub for days."""

_SOON_US = 30 * 86_400_000_000
"""So long before its end, a certificate that nobody renews by itself is told of."""

NOT_BEFORE_US = 1_767_225_600_000_000
"""2026-01-01 UTC: a clock before this software existed is wrong. Source: the first release's year."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing looked at. `remedy` says what to do where `level` is not ``ok``."""

    level: Literal["ok", "warn", "fail"]
    about: str
    what: str
    remedy: str = ""


def examine(site: Site) -> list[Finding]:
    """Look at everything in the order in which a technician would mend it."""
    findings: list[Finding] = []
    for look in _LOOKS:
        try:
            findings += look(site)
        except (KitError, OSError) as error:
            findings.append(Finding("fail", look.__name__.strip("_"), str(error), "mend this, then run doctor again"))
    return findings


def _clock(_: Site) -> Iterator[Finding]:
    now_us = _now_us()
    shown = datetime.fromtimestamp(now_us / 1e6, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
    if now_us < NOT_BEFORE_US:
        yield Finding("fail", "clock", f"it is {shown} here", "set the clock, or let chrony reach a time server")
    else:
        yield Finding("ok", "clock", shown)


def _disk(site: Site) -> Iterator[Finding]:
    folder = site.data if site.data.exists() else site.base
    free_mb = shutil.disk_usage(folder).free // 2**20
    held_mb = sum(f.stat().st_size for f in site.data.glob("memory.db*")) // 2**20 if site.data.exists() else 0
    budget_mb = site.config.disk.journal_mb
    text = f"{free_mb} MiB free; the journal holds {held_mb} of its {budget_mb} MiB"
    if not os.access(folder, os.W_OK):
        yield Finding(
            "fail", "disk", f"{folder} can't be written", "give its user the folder, or name another as `data`"
        )
    elif free_mb < budget_mb - held_mb:
        yield Finding("warn", "disk", text, "free space, or lower disk.journal_mb in the site file")
    else:
        yield Finding("ok", "disk", text)


def _process(site: Site) -> Iterator[Finding]:
    if is_locked(site.data):
        yield Finding("ok", "process", "the site runs")
    else:
        yield Finding("warn", "process", "the site does not run", "start it: edge-agent run SITE.yaml")


def _memory(site: Site) -> Iterator[Finding]:
    path = site.data / "memory.db"
    if not path.exists():
        yield Finding("ok", "memory", "none yet: the site makes it when it first runs")
        return
    with reading(path) as connection:
        backlog = sum(state.last - state.acked for state in streams(connection))
        newest = connection.execute(
            "SELECT max(at) FROM (SELECT at FROM journal ORDER BY id DESC LIMIT 100)"
        ).fetchone()[0]
        evicted = connection.execute(
            "SELECT coalesce(sum(last - first + 1), 0) FROM gaps WHERE reason NOT IN (?, ?, ?)",
            (EXPIRED, ERASED, DAMAGED),
        ).fetchone()[0]
        damaged = connection.execute(
            "SELECT coalesce(sum(last - first + 1), 0) FROM gaps WHERE reason=?", (DAMAGED,)
        ).fetchone()[0]
        intents = len(open_intents(connection))
        wear = recent(connection)
    waits = "wait for the hub's acknowledgement" if site.config.hub is not None else "are kept"
    yield Finding("ok", "memory", f"{backlog} records {waits}")
    if wear.decided:
        text = f"{wear.per_decision / 1000:.1f} kB written for each decision, {wear.decided} of them counted"
        yield Finding("ok", "wear", text)
    if newest is not None and newest > _now_us() + 60_000_000:
        yield Finding("warn", "clock", "records are newer than this clock", "the clock was set back: set it right")
    if evicted:
        yield Finding(
            "warn", "memory", f"{evicted} records were dropped unsent", "raise disk.journal_mb, or mend the link"
        )
    if damaged:
        yield Finding("warn", "memory", f"{damaged} records were damaged on this disk", "replace the disk or card")
    if intents and not is_locked(site.data):
        yield Finding("warn", "memory", f"{intents} acts were cut short", "they are settled when the site starts")


def _damage(site: Site) -> Iterator[Finding]:
    mark = read_mark(site.data / "memory.db")
    if mark is not None and mark.report is None:
        yield Finding(
            "fail", "memory", f"it is damaged: {mark.reason}", "restart the site: it mends what can be mended"
        )
    for file in set_aside(site.data):
        what = f"{file.name} was damaged and is kept ({file.stat().st_size // 2**20} MiB)"
        yield Finding("warn", "memory", what, "delete it when nobody wants to look into it; replace the disk or card")


def _release(site: Site) -> Iterator[Finding]:
    path = site.data / "memory.db"
    slot = refused = None
    if path.exists():
        with reading(path) as connection:
            slot, refused = read_slot(connection, "active"), read_refused(connection)
    number = slot.release.release if slot is not None else site.config.release
    yield Finding(
        "ok", "release", f"release {number}" + (f" (generation {slot.generation})" if slot else " (of the site file)")
    )
    if refused is not None and (slot is None or refused.generation > slot.generation):
        what = f"generation {refused.generation} was refused: {refused.reason}"
        yield Finding("fail", "release", what, "publish a release that this site can run")


def _what_runs(site: Site) -> tuple[Release, Mapping[Digest, bytes]]:
    """The release that runs, or would, and its bytes; nothing on the disk changes. Raises `KitError`."""
    slot = None
    if (site.data / "memory.db").exists():
        with reading(site.data / "memory.db") as connection:
            slot = read_slot(connection, "active")
    if slot is None or not slot.generation:
        return resolve(site.config.release, site.config.agents, site.base)
    blobs = {}
    for digest in map(Digest, slot.release.artifacts):
        try:
            blobs[digest] = (site.data / "blobs" / digest.removeprefix("sha256:")).read_bytes()
        except OSError as error:
            raise ConfigError(f"release {slot.release.release}: artifact {digest[:19]}: {error.strerror}") from None
        if digest_of(blobs[digest]) != digest:
            raise RejectedError(f"release {slot.release.release}: artifact {digest[:19]} is damaged on this disk")
    return slot.release, blobs


def _agents(site: Site) -> Iterator[Finding]:
    release, blobs = _what_runs(site)
    for brain in deploy(release, site.config.labels, blobs).brains:
        model = brain.model.contract
        yield Finding("ok", "agent", f"{brain.spec.name}: model {model.name} {model.version} passes its golden check")
        try:
            check_source(site, brain, _now_us)
        except ConfigError as error:
            yield Finding("fail", "agent", str(error), "mend the agent's `source`, or what it names in the site file")
        refused = sorted(set(brain.spec.grants) - set(site.config.grants))
        if refused:
            remedy = "add it to `grants` in the site file if this site allows it"
            yield Finding("warn", "agent", f"{brain.spec.name}: may not use {refused[0]} at this site", remedy)


def _hub(site: Site) -> Iterator[Finding]:
    if site.config.hub is None:
        yield Finding("ok", "hub", "none: this site runs alone")
        return
    host, port, _ = site.broker().address()
    found = _reach("hub", host, port, _MEND_THE_WAY)
    yield found if found.level != "ok" or (why := _foreign(site)) is None else Finding("fail", "hub", why, _NOT_OURS)
    if site.config.hub.enrol is not None:
        found = _reach("enrolment", *enrol_address(site.config.hub.enrol), _MEND_THE_WAY)
        if found.level == "ok" and (why := _foreign_enrolment(site, site.config.hub.enrol)) is not None:
            found = Finding("fail", "enrolment", why, _NOT_OURS)
        yield found


def _foreign(site: Site) -> str | None:
    """Why what answers there is another hub; not asked where this site has nothing yet to hold it against."""
    host, port, _ = site.broker().address()
    try:
        why = foreign(site.broker(), CONNECT_S)
    except (ConfigError, OSError):
        return None
    return f"{host}:{port} answers, and is not this site's hub: its certificate does not count: {why}" if why else None


def _foreign_enrolment(site: Site, url: str) -> str | None:
    from edge_agent.enrol.client import EstClient  # noqa: PLC0415 - X.509 is not every site's
    from edge_agent.enrol.identity import IdentityFolder  # noqa: PLC0415 - as above

    try:
        EstClient(url).time_us(IdentityFolder(site.identity, site.config.site))
    except RejectedError as error:
        return str(error)
    except (KitError, OSError):  # nothing to hold it against, or it went away just now
        return None
    return None


def _certificate(site: Site) -> Iterator[Finding]:
    from edge_agent.enrol.standing import (  # noqa: PLC0415 - X.509 is not every site's
        ASK_ANEW,
        broker_refusal,
        certificate_standing,
    )

    hub, now_us = site.config.hub, _now_us()
    found = certificate_standing(site, now_us)
    if hub is None or found is None:
        return
    by_hand = "edge-agent node renew SITE.yaml" if hub.enrol is not None else "put a new one there: it counts at once"
    if found.ends_us is None:
        yield _no_certificate(hub, found.token)
        return
    ends = f"it ends {_day(found.ends_us)}"
    if found.state == "not_begun":
        yield Finding("warn", "certificate", f"{ends}, and has not begun by this clock", "set the clock")
    elif found.state == "ended":
        yield Finding("fail", "certificate", f"it ended {_day(found.ends_us)}: the hub's broker refuses it", by_hand)
    elif found.renew_us is not None and now_us >= found.renew_us + _LATE_US:
        what = f"{ends}, and should have been renewed {_day(found.renew_us)}"
        yield Finding("warn", "certificate", what, f"see that {hub.enrol} can be reached, then: {by_hand}")
    elif found.renew_us is None and now_us >= found.ends_us - _SOON_US:
        yield Finding("warn", "certificate", ends, by_hand)
    elif (why := broker_refusal(site)) is not None:
        yield Finding("fail", "certificate", f"{ends}, and {why}", ASK_ANEW)
    else:
        renewed = f", and is renewed from {_day(found.renew_us)}" if found.renew_us is not None else ""
        yield Finding("ok", "certificate", ends + renewed)


def _no_certificate(hub: HubLink, token: str) -> Finding:
    if hub.enrol is None:
        return Finding("fail", "certificate", f"hub.cert_file {hub.cert_file} is not there", "put it there")
    if token == "none":  # noqa: S105 - no password
        what = f"none, and no join token in {hub.join_token_file or 'the site file'}"
        remedy = "get a token where the hub is, then: edge-agent node join SITE.yaml --token FILE"
        return Finding("fail", "certificate", what, remedy)
    remedy = "a site that runs tries by itself; edge-agent node join SITE.yaml says why it can't"
    return Finding("fail", "certificate", "none yet: this site has not joined its hub", remedy)


def _day(us: int) -> str:
    return datetime.fromtimestamp(us / 1e6, UTC).strftime("%Y-%m-%d")


def _now_us() -> int:
    return time.time_ns() // 1000


def _endpoints(site: Site) -> Iterator[Finding]:
    for name, endpoint in sorted(site.config.endpoints.items()):
        parts = urlsplit(endpoint.url)
        ports = {"mqtt": 1883, "mqtts": 8883, "http": 80, "https": 443}
        port = parts.port or ports.get(parts.scheme, 0)
        if parts.hostname and port:
            yield _reach(f"endpoint {name}", parts.hostname, port, "check that machine and the site file's `endpoints`")


_LOOKS: tuple[Callable[[Site], Iterator[Finding]], ...] = (
    _clock,
    _disk,
    _process,
    _damage,
    _memory,
    _release,
    _agents,
    _hub,
    _certificate,
    _endpoints,
)


def _reach(about: str, host: str, port: int, remedy: str) -> Finding:
    try:
        with socket.create_connection((host, port), CONNECT_S):
            return Finding("ok", about, f"{host}:{port} answers")
    except OSError as error:
        return Finding("fail", about, f"{host}:{port} does not answer ({error.strerror or error})", remedy)
