"""`edge-agent update`: what a site runs and should run, as its technician sees and steers it; and sticks for it."""

import json
import os
import shutil
import sqlite3
import time
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

import typer

from edge_agent.config import Site, load_site
from edge_agent.memory.lock import is_locked
from edge_agent.update.overview import Overview, read_overview
from edge_agent.update.wishes import Wishes
from edge_cli.hub_client import HubClient, HubDirOption, HubOption, TokenOption, connect
from edge_cli.output import FOUND, data, emit_json, talk
from edge_models.durable import sync_tree
from edge_models.errors import ConfigError, RejectedError, RetryableError
from edge_sync.documents import Desired, load
from edge_sync.release import Release
from edge_sync.signing import unverified_payload
from edge_sync.stick import INDEX, Index, Stick

app = typer.Typer(
    add_completion=False, no_args_is_help=True, help="What a site runs and should run; sticks for sites without a link."
)

SiteArgument = Annotated[Path, typer.Argument(metavar="SITE_FILE", help="The site file.", show_default=False)]
JsonOption = Annotated[bool, typer.Option("--json", help="Print one JSON object on stdout.")]

LOOK_S = 0.3


@app.command()
def status(file: SiteArgument, as_json: JsonOption = False) -> None:
    """Say what runs, what ran before, what was refused and why, and what is trusted. Works while the site is off.

    Example: edge-agent update status site.yaml
    """
    site = load_site(file)
    found = read_overview(site.data)
    if as_json:
        emit_json(found.to_json() | {"site": site.config.site, "running": is_locked(site.data)})
        return
    for line in found.lines():
        data.print(line, markup=False, soft_wrap=True)
    if not is_locked(site.data):
        talk.print("the site does not run now")


@app.command()
def hold(
    file: SiteArgument,
    reason: Annotated[str, typer.Option(help="Why: it is shown at the hub.")] = "held at the site",
    as_json: JsonOption = False,
) -> None:
    """Take nothing new from now on; what runs runs on.

    Example: edge-agent update hold site.yaml --reason "stocktaking until Monday"
    """
    site = load_site(file)
    Wishes(site.data).hold(reason)
    line = f"{site.config.site} takes nothing new until `edge-agent update unhold`"
    _say(line, {"site": site.config.site, "hold": reason}, as_json)


@app.command()
def unhold(file: SiteArgument, as_json: JsonOption = False) -> None:
    """Take what is new again, also what came while the site was held.

    Example: edge-agent update unhold site.yaml
    """
    site = load_site(file)
    was = Wishes(site.data).unhold()
    line = f"{site.config.site} {'takes what is new again' if was else 'was not held'}"
    _say(line, {"site": site.config.site, "was_held": was}, as_json)


@app.command()
def rollback(
    file: SiteArgument,
    reason: Annotated[str, typer.Option(help="Why: it is recorded.")] = "asked for at the site",
    wait_s: Annotated[float, typer.Option("--wait", min=0, help="Seconds to wait for it.")] = 60.0,
    as_json: JsonOption = False,
) -> None:
    """Run the release before again; the one that runs now is refused until the hub asks anew.

    Example: edge-agent update rollback site.yaml --reason "labels the wrong shelf"
    """
    site = load_site(file)
    before = read_overview(site.data)
    if before.previous is None:
        raise RejectedError(f"{site.config.site} has no release before release {before.release}")
    Wishes(site.data).go_back(reason)
    what = f"{site.config.site} goes back"
    _follow(site, wait_s, what, lambda now: now.release == before.previous, as_json=as_json)


@app.command("import")
def import_(
    stick: Annotated[Path, typer.Argument(metavar="STICK", help="The folder on the stick.", show_default=False)],
    file: Annotated[Path, typer.Option("--site", metavar="SITE_FILE", help="The site file.")] = Path("site.yaml"),
    wait_s: Annotated[float, typer.Option("--wait", min=0, help="Seconds to wait for it to run.")] = 120.0,
    as_json: JsonOption = False,
) -> None:
    """Give this site what a stick holds for it: verified as if it had come from the hub.

    Example: edge-agent update import /media/stick/update --site site.yaml
    """
    site = load_site(file)
    source = Stick(stick)
    envelope = source.desired(site.config.site)
    asked = load(Desired, unverified_payload(envelope))
    floor = read_overview(site.data).floor if (site.data / "memory.db").exists() else 0  # it may never have run
    if asked.generation < floor:
        raise RejectedError(
            f"{stick}: what it asks for (generation {asked.generation}) is older than what {site.config.site} "
            f"has seen ({floor}): make a new stick"
        )
    needed = _needed(asked, site)
    blobs = {digest: path for digest, path in source.blobs().items() if digest in needed}
    held = {f"sha256:{path.name}" for path in (site.data / "blobs").glob("*")}
    if lacking := needed - held - blobs.keys():
        raise RejectedError(f"{stick}: it lacks {len(lacking)} of the artifacts, {sorted(lacking)[0]} first")
    try:
        with Wishes(site.data).stick() as offer:
            offer.put("trust.bin", source.trust())
            offer.put("desired.json", envelope)
            for digest, path in blobs.items():
                if digest not in held:
                    offer.put_blob(digest, path)
            offer.done()
    except OSError as error:
        raise RetryableError(f"{error.filename or site.data}: {error.strerror}") from None
    release = asked.release.get("release")
    _follow(
        site,
        wait_s,
        f"{site.config.site} was given release {release}",
        lambda now: now.generation >= asked.generation and now.refused_generation != asked.generation,
        asked.generation,
        as_json,
    )


@app.command()
def export(
    out: Annotated[Path, typer.Option(metavar="STICK", help="The folder to make.", show_default=False)],
    to: Annotated[list[str] | None, typer.Option(metavar="SITE", help="For this site; repeat.")] = None,
    everywhere: Annotated[bool, typer.Option("--all", help="For every site that should run something.")] = False,
    valid: Annotated[str, typer.Option(metavar="DAYS", help="How long it may be imported, as in 90d.")] = "90d",
    hub: HubOption = None,
    token_file: TokenOption = None,
    hub_dir: HubDirOption = None,
    as_json: JsonOption = False,
) -> None:
    """Make a folder for a USB stick: what these sites should run, all it needs, and signatures that last.

    Example: edge-agent update export --all --valid 90d --out /media/stick/update --hub-dir /var/lib/edge-hub
    """
    if bool(to) is everywhere:
        raise ConfigError("for whom? name sites with --to SITE, or all with --all")
    days = _days(valid)
    client = connect(hub, token_file, hub_dir)
    if os.path.lexists(out):
        raise ConfigError(f"--out {out} is there already: name a new folder")
    part = out.with_name(f".{out.name}.part")
    try:
        shutil.rmtree(part, ignore_errors=True)
        (part / "desired").mkdir(parents=True)
        (part / "blobs").mkdir()
        index = _fill(part, to, days, client)
        (part / INDEX).write_text(index.model_dump_json(indent=1) + "\n")
        sync_tree(part)
        part.rename(out)
    except OSError as error:
        raise RetryableError(f"{error.filename or out}: {error.strerror}") from None
    finally:
        shutil.rmtree(part, ignore_errors=True)
    size = sum(path.stat().st_size for path in out.rglob("*") if path.is_file())
    if as_json:
        emit_json({"path": str(out), "sites": dict(index.sites), "bytes": size, "valid_days": days})
        return
    until = datetime.fromtimestamp(index.valid_until_us / 1e6, UTC).date()
    data.print(f"{out}: for {len(index.sites)} sites, {size / 1e6:.1f} MB, may be imported until {until}", markup=False)


def _fill(part: Path, to: list[str] | None, days: int, client: HubClient) -> Index:
    names = to if to is not None else [each["site"] for each in client.request("GET", "/api/v1/sites")["sites"]]
    generations: dict[str, int] = {}
    digests: set[str] = set()
    for name in names:
        target = part / "desired" / f"{name}.json"
        try:
            client.download("GET", f"/api/v1/sites/{name}/desired", target)
        except RejectedError:
            if to is not None:
                raise
            target.unlink(missing_ok=True)
            continue
        asked = load(Desired, unverified_payload(target.read_bytes()))
        generations[name] = asked.generation
        digests |= set(Release.model_validate(asked.release).artifacts)
    if not generations:
        raise RejectedError("no site should run anything yet: push a release first")
    for digest in sorted(digests):
        client.download("GET", f"/api/v1/artifacts/{digest}/bytes", part / "blobs" / digest.removeprefix("sha256:"))
    # Last, so that what it names is at least as new as what the documents need.
    client.download("POST", "/api/v1/trust/media", part / "trust.bin", json={"valid_days": days})
    now_us = time.time_ns() // 1000
    return Index(made_us=now_us, valid_until_us=now_us + days * 86_400_000_000, sites=generations)


def _needed(asked: Desired, site: Site) -> set[str]:
    try:
        return set(Release.model_validate(asked.release).for_site(site.config.labels).artifacts)
    except ValueError:
        raise RejectedError("the stick's document names no release that this kit can read") from None


def _follow(
    site: Site,
    wait_s: float,
    what: str,
    done: Callable[[Overview], bool],
    generation: int | None = None,
    as_json: bool = False,
) -> None:
    """Wait until the site has done it, and say so; exit 1 where it refused."""
    name = site.config.site
    if not is_locked(site.data):
        _say(f"{what}: it does so when it starts", {"site": name, "outcome": "waits"}, as_json)
        return
    deadline = time.monotonic() + wait_s
    since_us = time.time_ns() // 1000 - 1_000_000
    while time.monotonic() < deadline:
        now = read_overview(site.data)
        if done(now):
            facts = {"site": name, "outcome": "done", "release": now.release, "generation": now.generation}
            _say(f"{what}: it runs release {now.release}", facts, as_json)
            return
        refused = now.refusal if generation is not None and now.refused_generation == generation else None
        refused = refused or _alarm(site, since_us)
        if refused is not None:
            _say(f"{what}, and refused it: {refused}", {"site": name, "outcome": "refused", "reason": refused}, as_json)
            raise typer.Exit(FOUND)
        if not now.waiting and not now.arriving:  # it was taken up; the same refusal is recorded once a minute only
            since_us = min(since_us, time.time_ns() // 1000 - 61_000_000)
        time.sleep(LOOK_S)
    raise RetryableError(f"{what}; it was not done within {wait_s:.0f} s: look again with `edge-agent update status`")


def _say(line: str, facts: dict[str, Any], as_json: bool) -> None:
    if as_json:
        emit_json(facts)
    else:
        data.print(line, markup=False, soft_wrap=True)


def _alarm(site: Site, since_us: int) -> str | None:
    """What the site refused since then."""
    with suppress(sqlite3.Error, ValueError, KeyError, OSError):
        uri = f"{(site.data / 'memory.db').resolve().as_uri()}?mode=ro"
        db = sqlite3.connect(uri, uri=True, timeout=2)
        try:
            row = db.execute(
                "SELECT body FROM journal WHERE lane='alarm' AND label='update_refused' AND at>=? ORDER BY id DESC",
                (since_us,),
            ).fetchone()
        finally:
            db.close()
        return None if row is None else str(json.loads(row[0])["reason"])
    return None


def _days(text: str) -> int:
    number = text.removesuffix("d")
    if not number.isdigit() or not 1 <= int(number) <= 365:
        raise ConfigError(f"--valid {text!r}: wanted days, 1d to 365d")
    return int(number)
