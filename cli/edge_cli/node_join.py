"""`edge-agent node join|renew|status`: a site's certificate by hand. A site that runs does the same by itself."""

import time
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape

from edge_agent.backup.room import REMEDY, is_full
from edge_agent.config import HubLink, Site, load_site
from edge_agent.enrol.client import EstClient
from edge_agent.enrol.flow import NotDue, join, journal_public, renew
from edge_agent.enrol.identity import IdentityFolder, print_of
from edge_agent.enrol.schedule import Held
from edge_agent.enrol.standing import ASK_ANEW, CertificateStanding, broker_refusal, certificate_standing
from edge_agent.memory.checkpoint import KEY_FILE
from edge_agent.memory.owner import refuse_another
from edge_cli.output import FOUND, data, emit_json, talk
from edge_models.errors import ConfigError, KitError, RetryableError

app = typer.Typer(add_completion=False)
"""Holds the commands for the group `edge-agent node`, which takes them over."""

SiteFile = Annotated[Path, typer.Argument(metavar="SITE.yaml", help="The site file.", show_default=False)]
DataFolder = Annotated[
    Path | None, typer.Option("--data", metavar="DIR", help="Use this data folder, not the site file's.")
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]


def join_by_hand(site: Site, token_file: Path | None = None) -> tuple[Held, bool]:
    """Have a certificate of this token, and whether it is new: a token that was used already changes nothing.

    Raises `ConfigError` where there is no token to be read, and as `edge_agent.enrol.flow.join`.
    """
    hub = _enrolling(site)
    file = token_file or site.path(hub.join_token_file)
    if file is None:
        raise ConfigError("no join token: name its file with --token, or as hub.join_token_file in the site file")
    try:
        token = file.read_text()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"join token {file}: {getattr(error, 'strerror', None) or 'is no text'}") from None
    refuse_another(site.data, site.config.site)
    folder = IdentityFolder(site.identity, site.config.site)
    try:
        folder.settle()
        held = _held(folder)
        if held is not None and held.token == print_of(token):
            return held, False
        site.data.mkdir(parents=True, exist_ok=True, mode=0o700)
        key = journal_public(site.data / KEY_FILE)
        return join(EstClient(hub.enrol or ""), folder, site.config.site, token, key), True
    except OSError as error:
        raise _not_written(site, error) from None


def renew_by_hand(site: Site, force: bool) -> Held | NotDue:
    """As `edge_agent.enrol.flow.renew`, which see for what it raises."""
    hub = _enrolling(site)
    folder = IdentityFolder(site.identity, site.config.site)
    try:
        return renew(EstClient(hub.enrol or ""), folder, site.config.site, lambda: time.time_ns() // 1000, force)
    except OSError as error:
        raise _not_written(site, error) from None


@app.command("join")
def join_command(
    file: SiteFile,
    token: Annotated[
        Path | None, typer.Option(metavar="FILE", help="The join token; left out: hub.join_token_file.")
    ] = None,
    data_folder: DataFolder = None,
    as_json: AsJson = False,
) -> None:
    """Get the site's certificate from its hub with a join token. Interrupted, it goes on where it was when run again.

    Example: edge-agent node join site.yaml --token join.token
    """
    site = load_site(file, data_folder)
    held, new = join_by_hand(site, token)
    why = None if new else broker_refusal(site)
    if as_json:
        _emit(site, held, new)
    if why is not None:
        talk.print(f"{site.config.site} has joined with this token already, and {why}: {ASK_ANEW}", markup=False)
        raise typer.Exit(FOUND)
    if as_json:
        return
    word = "has joined" if new else "has joined with this token already"
    data.print(f"{site.config.site} {word}: its certificate ends {_day(held.ends_us)}", markup=False)
    talk.print(f"it is renewed by itself from {_day(held.renew_us)}", markup=False)


@app.command("renew")
def renew_command(
    file: SiteFile,
    now: Annotated[bool, typer.Option("--now", help="Also where it is not due yet.")] = False,
    data_folder: DataFolder = None,
    as_json: AsJson = False,
) -> None:
    """Renew the site's certificate if it is due, run out or not; the old one is the proof.

    Example: edge-agent node renew site.yaml --now
    """
    site = load_site(file, data_folder)
    came = renew_by_hand(site, now)
    name = site.config.site
    if as_json:
        held = came if isinstance(came, Held) else IdentityFolder(site.identity, name).held()
        _emit(site, held, isinstance(came, Held))
        return
    if isinstance(came, NotDue):
        why, held = broker_refusal(site), IdentityFolder(site.identity, name).held()
        if why is not None:
            talk.print(f"{name}: not due yet, and {why}: {ASK_ANEW}", markup=False)
            raise typer.Exit(FOUND)
        due = "" if held is None else f", due from {_day(held.renew_us)}"
        data.print(f"{name}: not due yet by the hub's clock ({_day(came.time_us)}){due}; --now renews it", markup=False)
        return
    data.print(f"{name}: renewed; its certificate ends {_day(came.ends_us)}", markup=False)


@app.command("status")
def status_command(file: SiteFile, as_json: AsJson = False, data_folder: DataFolder = None) -> None:
    """Say how the site stands with its hub: its certificate, and what to do; exits 1 without one that counts.

    Example: edge-agent node status site.yaml --json
    """
    site = load_site(file, data_folder)
    hub, found = site.config.hub, certificate_standing(site, time.time_ns() // 1000)
    if hub is None or found is None:
        raise ConfigError(f"{file.name}: this site has no certificate: its `hub` names neither enrol nor cert_file")
    refused = broker_refusal(site) if found.state in ("valid", "due") else None
    if as_json:
        emit_json(
            {"site": site.config.site, "broker": hub.broker, "enrol": hub.enrol, **asdict(found), "refused": refused}
        )
    else:
        for about, what in _lines(hub, found, refused):
            data.print(f"[bold]{about:<12}[/] {escape(what)}")
    if found.state in ("none", "ended") or refused is not None:
        raise typer.Exit(FOUND)


def _emit(site: Site, held: Held | None, new: bool) -> None:
    """`new`: whether this certificate came just now."""
    times = {"renew_us": held.renew_us, "ends_us": held.ends_us} if held is not None else {}
    emit_json({"site": site.config.site, "new": new, **times})


def _lines(hub: HubLink, found: CertificateStanding, refused: str | None) -> list[tuple[str, str]]:
    said = {
        "none": "none: this site has not joined its hub",
        "not_begun": "has not begun by this machine's clock: set the clock",
        "valid": "good",
        "due": "good, and due to be renewed: a site that runs does it by itself",
        "ended": "has run out: edge-agent node renew SITE.yaml, or run the site",
    }
    tokens = {"none": "none", "new": "there is one to join with", "used": "this certificate came of it"}
    lines = [("certificate", said[found.state] if refused is None else f"good by its dates, and {refused}: {ASK_ANEW}")]
    lines += [("serial", found.serial)] if found.serial else []
    moments = (("began", found.begins_us), ("renewed from", found.renew_us), ("ends", found.ends_us))
    lines += [(about, _day(us)) for about, us in moments if us is not None]
    return [*lines, ("join token", tokens[found.token]), ("broker", hub.broker), ("enrolment", hub.enrol or "none")]


def _enrolling(site: Site) -> HubLink:
    hub = site.config.hub
    if hub is None or hub.enrol is None:
        raise ConfigError("this site file names no place to enrol: add `enrol: https://HOST:8443` under `hub:`")
    return hub


def _held(folder: IdentityFolder) -> Held | None:
    """Another site's counts as none: what is joined takes its place."""
    try:
        return folder.held()
    except ConfigError as error:
        talk.print(f"mind: {error}", markup=False, soft_wrap=True)
        return None


def _not_written(site: Site, error: OSError) -> KitError:
    if is_full(error):
        return RetryableError(f"{site.data}: {error.strerror}: {REMEDY}, and do the same again")
    return ConfigError(f"{site.data}: {error.strerror or error}: this command needs the rights of who runs the site")


def _day(us: int) -> str:
    return datetime.fromtimestamp(us / 1e6, UTC).strftime("%Y-%m-%d")
