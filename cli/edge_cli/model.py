"""`edge-agent model`: look into bundles, and publish them. How they are made: `edge_cli.model_make`."""

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer

from edge_cli import model_make
from edge_cli.hub_client import HubDirOption, HubOption, TokenOption
from edge_cli.model_make import AsJson, comparison, contract_table
from edge_cli.output import data, emit_json, talk
from edge_cli.publish import AgainOption, TrustOption, publish_file, read_file
from edge_cli.repository import KeysOption, PassphraseOption
from edge_models.build.unpacking import unpack as unpack_bundle
from edge_models.bundle import read_bundle
from edge_models.errors import RejectedError
from edge_sync.trust.paths import MODELS

app = typer.Typer(add_completion=False, no_args_is_help=True, help="Make, inspect and publish bundles.")
app.command("import")(model_make.import_)
app.command()(model_make.quantize)
app.command()(model_make.evaluate)
app.command()(model_make.pack)
app.command()(model_make.build)


@app.command()
def publish(
    bundle: Annotated[Path, typer.Argument(help="A .bundle file.", show_default=False)],
    trust: TrustOption,
    keys: KeysOption = None,
    passphrase_file: PassphraseOption = None,
    hub: HubOption = None,
    token_file: TokenOption = None,
    hub_dir: HubDirOption = None,
    again: AgainOption = False,
    as_json: AsJson = False,
) -> None:
    """Verify a bundle, sign that it may run, and give both to the hub.

    Example: edge-agent model publish trace-2.bundle --trust /secure/trust --hub-dir /var/lib/edge-hub
    """
    content = read_file(bundle)
    try:
        read_bundle(content)
    except RejectedError as error:
        raise RejectedError(f"{bundle}: {error}") from None
    publish_file(MODELS, content, bundle.name, trust, keys, passphrase_file, (hub, token_file, hub_dir), as_json, again)


@app.command()
def verify(
    bundle: Annotated[Path, typer.Argument(help="A .bundle file.", show_default=False)],
    as_json: AsJson = False,
) -> None:
    """Verify every byte of a bundle, and that this machine's CPU gets the answers that its maker got.

    Example: edge-agent model verify trace-2.bundle
    """
    from edge_agent.inference.model import Model  # noqa: PLC0415 - ONNX Runtime: the other commands run nothing

    model = Model(read_bundle(bundle))
    report = model.check_golden()
    if as_json:
        emit_json({"digest": model.digest, "passed": report.passed, "golden": asdict(report)})
    elif report.passed:
        data.print(f"{bundle}  {model.digest}", markup=False)
        data.print(str(report), markup=False)
    if not report.passed:
        raise RejectedError(f"{bundle}: {report}")


@app.command()
def unpack(
    bundle: Annotated[Path, typer.Argument(help="A .bundle file.", show_default=False)],
    out: Annotated[Path, typer.Option(help="A new folder for its parts.", show_default=False)],
    as_json: AsJson = False,
) -> None:
    """Write a bundle's parts, verified, into a new folder: graph, contract, card, golden samples, files.

    Example: edge-agent model unpack trace-2.bundle --out trace-2
    """
    unpack_bundle(bundle, out)
    if as_json:
        emit_json({"path": str(out), "files": sorted(str(p.relative_to(out)) for p in out.rglob("*") if p.is_file())})
        return
    talk.print(f"{bundle} is in {out}", markup=False)


@app.command()
def inspect(
    bundle: Annotated[Path, typer.Argument(help="A .bundle file.")],
    as_json: AsJson = False,
) -> None:
    """Verify a bundle and print its contract and its card.

    Example: edge-agent model inspect trace-2.bundle
    """
    seen = read_bundle(bundle)
    size = bundle.stat().st_size
    if as_json:
        contract = seen.contract.to_json()
        emit_json({"digest": seen.digest, "size_bytes": size, "contract": contract, "card": dict(seen.card)})
        return
    data.print(f"[bold]{seen.contract.name} {seen.contract.version}[/]  {size:,} bytes  {seen.digest}")
    data.print(contract_table(seen.contract, len(seen.golden.truth)))
    # A card from another workshop may lack the numbers; what it does say is printed below.
    with suppress(KeyError, TypeError, ValueError):
        data.print(comparison(seen.card))
    data.print("\n".join(_lines(seen.card)), markup=False)


def _lines(value: Mapping[str, Any], depth: int = 0) -> list[str]:
    """A JSON object as indented lines, for reading."""
    lines = []
    for key, part in value.items():
        name = "  " * depth + str(key).replace("_", " ")
        if isinstance(part, dict) and all(isinstance(number, int | float) for number in part.values()):
            lines.append(f"{name}: {', '.join(f'{what} {number}' for what, number in part.items())}")
        elif isinstance(part, dict):
            lines += [name, *_lines(part, depth + 1)]
        elif isinstance(part, list):
            lines += [name, *("  " * (depth + 1) + str(item) for item in part)]
        else:
            lines.append(f"{name}: {part}")
    return lines
