"""`edge-agent fleet explain`: why a site did something, from what the hub has of it."""

import json
from typing import Annotated, Any
from urllib.parse import quote

import typer

from edge_agent.memory.queries import Record, parse_id
from edge_cli.explained import explanation_tree, to_json
from edge_cli.hub_client import HubDirOption, HubOption, TokenOption, connect
from edge_cli.output import data, emit_json
from edge_sync.explain import Explanation


def explain_command(
    site: Annotated[str, typer.Argument(help="The site's id.", show_default=False)],
    record: Annotated[str, typer.Argument(help="A record id, as EPOCH:LANE:SEQ.", show_default=False)],
    hub: HubOption = None,
    token_file: TokenOption = None,
    hub_dir: HubDirOption = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object on stdout.")] = False,
) -> None:
    """Say why a site did something, as `memory explain` does there: from observation to action and override.

    Example: edge-agent fleet explain plant-01 66b8850bbe06a2c6:decision:42 --hub-dir /var/lib/edge-hub
    """
    parse_id(record)
    path = f"/api/v1/sites/{quote(site, safe='')}/records/{quote(record, safe=':')}/explain"
    answer = connect(hub, token_file, hub_dir).request("GET", path)
    found = Explanation(tuple(_record(each) for each in answer["chain"]), tuple(answer["missing"]))
    if as_json:
        emit_json({"chain": [to_json(each) for each in found.chain], "missing": list(found.missing)})
    else:
        data.print(explanation_tree(found, record))


def _record(shown: dict[str, Any]) -> Record:
    """A record from the API's answer; a body that is no JSON object is shown as it is."""
    try:
        body = json.loads(shown["body"])
    except ValueError:
        body = shown["body"]
    names = ("epoch", "lane", "seq", "at", "kind", "agent", "subject", "label", "score", "ref")
    values = {name: shown[name] for name in names}
    return Record(**values, body=body if isinstance(body, dict) else {"body": body}, hash=bytes.fromhex(shown["hash"]))
