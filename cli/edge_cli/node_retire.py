"""`edge-agent node retire`: a site that is to be one no longer."""

from pathlib import Path
from typing import Annotated

import typer

from edge_cli.hub_client import HubDirOption, HubOption, TokenOption, connect
from edge_cli.output import data, emit_json, talk
from edge_k3s.names import check_site
from edge_k3s.wiping import wipe_secrets
from edge_models.errors import ConfigError

app = typer.Typer(add_completion=False)
"""Holds the command for the group `edge-agent node`, which takes it over."""


@app.command()
def retire(
    site: Annotated[str, typer.Argument(help="The site's id.", show_default=False)],
    hub: HubOption = None,
    token_file: TokenOption = None,
    hub_dir: HubDirOption = None,
    kit: Annotated[
        list[Path] | None, typer.Option(metavar="KIT", help="A copy of its kit, whose secrets are wiped; repeat.")
    ] = None,
    reason: Annotated[str, typer.Option(metavar="TEXT", help="For the hub's audit.")] = "retired",
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object on stdout.")] = False,
) -> None:
    """Revoke a site at its hub, so that nothing of it is let in again, and wipe the secrets in copies of its kit.

    Of a site that was run from its kit the keys that it made there go too. Exits 3 where the hub knows no such site.

    Example: edge-agent node retire plant-07 --hub-dir /var/lib/edge-hub --kit kits/plant-07
    """
    check_site(site)
    for each in kit or ():
        _check_kit(each, site)
    connect(hub, token_file, hub_dir).request("POST", f"/api/v1/sites/{site}/revoke", json={"reason": reason})
    wiped = {str(each): wipe_secrets(each) for each in kit or ()}
    if as_json:
        emit_json({"site": site, "revoked": True, "wiped": wiped})
        return
    data.print(f"{site}: revoked at the hub", markup=False)
    for folder, names in wiped.items():
        data.print(f"{folder}: {len(names)} files with secrets are gone", markup=False)
        if (memory := Path(folder) / "data" / "memory.db").exists():
            talk.print(f"{memory} stays: it is what the site remembers, and no secret", markup=False, soft_wrap=True)
    talk.print("on its node: sh /var/lib/edge-agent-kit/install.sh --uninstall --purge", markup=False)


def _check_kit(kit: Path, site: str) -> None:
    """Nobody wipes another site's kit by a slip."""
    try:
        lines = (kit / "kit.env").read_text("utf-8").splitlines()
    except (OSError, UnicodeDecodeError):
        raise ConfigError(f"--kit {kit}: no readable kit.env: is it the folder of a kit?") from None
    if f"SITE={site}" not in lines:
        raise ConfigError(f"--kit {kit}: is not the kit of {site}")
