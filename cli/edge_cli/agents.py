"""`edge-agent agents`: sign which agents may run, with which models and policies."""

from pathlib import Path
from typing import Annotated

import typer

from edge_cli.hub_client import HubDirOption, HubOption, TokenOption
from edge_cli.publish import AgainOption, TrustOption, publish_file, unsigned_parts
from edge_cli.release import make_release
from edge_cli.repository import KeysOption, PassphraseOption, open_repository
from edge_models.errors import RejectedError
from edge_sync.trust.paths import AGENTS

app = typer.Typer(add_completion=False, no_args_is_help=True, help="Sign which agents may run.")


@app.callback()
def _group() -> None:
    """With a callback, typer keeps `publish` a word of its own while it is the only command."""


@app.command()
def publish(
    file: Annotated[Path, typer.Argument(help="A release file: `release` and `agents`.", show_default=False)],
    trust: TrustOption,
    keys: KeysOption = None,
    passphrase_file: PassphraseOption = None,
    hub: HubOption = None,
    token_file: TokenOption = None,
    hub_dir: HubDirOption = None,
    again: AgainOption = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object on stdout.")] = False,
) -> None:
    """Check agents against their models and policies, sign them, and hand the signature to the hub.

    Example: edge-agent agents publish release-2.yaml --trust /secure/trust --hub-dir /var/lib/edge-hub
    """
    release, _ = make_release(file)
    if missing := unsigned_parts(release, open_repository(trust, keys or ())):
        raise RejectedError(f"{file}: {missing[0]} is not signed: publish it first (`model publish`, `policy publish`)")
    name, content = f"release {release.release}", release.document.encode()
    publish_file(AGENTS, content, name, trust, keys, passphrase_file, (hub, token_file, hub_dir), as_json, again)
