"""`edge-agent model`: build reference bundles, and look into any bundle."""

from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.markup import escape
from rich.table import Table

from edge_cli.hub_client import HubDirOption, HubOption, TokenOption
from edge_cli.output import data, emit_json, talk
from edge_cli.publish import AgainOption, TrustOption, publish_file, read_file
from edge_cli.trust import KeysOption, PassphraseOption
from edge_models.build.recipe import load_recipe, needs_extra, recipe_names
from edge_models.bundle import Bundle, read_bundle
from edge_models.errors import RejectedError
from edge_models.tensors import TensorSpec
from edge_sync.trust.paths import MODELS

app = typer.Typer(add_completion=False, no_args_is_help=True, help="Build, inspect and publish bundles.")

AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON object on stdout.")]


@app.command()
def build(
    recipe: Annotated[str, typer.Argument(help=f"One of {', '.join(recipe_names())}.")],
    version: Annotated[str | None, typer.Option(help="Which version of the model; the newest by default.")] = None,
    out: Annotated[Path, typer.Option(help="Folder for NAME-VERSION.bundle.")] = Path(),
    as_json: AsJson = False,
) -> None:
    """Train, quantize and measure a reference model, and write its bundle. The same build gives the same digest.

    Example: edge-agent model build trace --version 2 --out bundles
    """
    chosen = load_recipe(recipe)
    number = chosen.version(version)
    with talk.status(f"{recipe} {number}") as status:
        with needs_extra():
            from edge_models.build.make import make  # noqa: PLC0415 - torch and optimum take seconds to import
        built = make(chosen, number, out, lambda remark: status.update(f"{recipe} {number}: {remark}"))
    if as_json:
        emit_json({"path": str(built.path), "digest": built.digest, "card": built.card})
        return
    data.print(_comparison(built.card))
    data.print(f"{built.path}  {built.path.stat().st_size:,} bytes  {built.digest}")


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
    data.print(_contract(seen))
    # A card from another workshop may lack the numbers; what it does say is printed below.
    with suppress(KeyError, TypeError, ValueError):
        data.print(_comparison(seen.card))
    data.print("\n".join(_lines(seen.card)), markup=False)


def _comparison(card: Any) -> Table:
    """Float against int8: what quantization cost, and what it brought."""
    metrics, size, latency = card["metrics"], card["size"], card["latency"]
    table = Table("held-out", "float", "int8", "int8 / float")
    for name, key in (("accuracy", "accuracy"), ("macro-F1", "macro_f1")):
        table.add_row(name, f"{metrics['float'][key]:.4f}", f"{metrics['int8'][key]:.4f}", "")
    ratio = size["int8_bytes"] / size["float_bytes"]
    table.add_row("graph, bytes", f"{size['float_bytes']:,}", f"{size['int8_bytes']:,}", f"{ratio:.2f}")
    pays = "" if latency["ratio"] < 1 else "  (int8 does not pay)"
    microseconds = f"{latency['float_us']:.1f}", f"{latency['int8_us']:.1f}"
    table.add_row("one sample, one thread, µs", *microseconds, f"{latency['ratio']:.2f}{pays}")
    table.add_row("same label", "", f"{metrics['agreement']:.4f}", "")
    table.caption = escape(f"{latency['cpu']}, ONNX Runtime {latency['onnxruntime']}")
    return table


def _contract(bundle: Bundle) -> Table:
    table = Table("", "name", "shape", "dtype", "what")
    contract = bundle.contract
    for role, specs in (("input", contract.inputs), ("output", contract.outputs)):
        for spec in specs:
            table.add_row(*(escape(text) for text in (role, spec.name, _shape(spec), spec.dtype, _what(spec))))
    labels = escape(", ".join(contract.labels))
    table.caption = f"{contract.task}: {labels} · golden samples {len(bundle.golden.truth)}"
    return table


def _shape(spec: TensorSpec) -> str:
    return "(" + ", ".join(str(axis) for axis in spec.shape) + ")"


def _what(spec: TensorSpec) -> str:
    return "; ".join(text for text in (spec.unit, spec.description) if text)


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
