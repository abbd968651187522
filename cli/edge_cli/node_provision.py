"""`edge-agent node provision`: register sites at their hub, and write their kits."""

import csv
import dataclasses
import io
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import orjson
import typer
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from edge_cli.hub_client import HubClient, read_token
from edge_cli.kit_pod import (
    GpusOption,
    MonitoringOption,
    PodWish,
    SensorNetworkOption,
    SensorPortOption,
    SensorsImageOption,
)
from edge_cli.kit_sealer import TRUST_VARIABLE, default_folder, find_sealer
from edge_cli.kits import DEFAULT_IMAGE, Signing, Wish, provision_kit, provision_kits
from edge_cli.output import data, emit_json, talk
from edge_cli.repository import KeysOption, PassphraseOption, PlainOption
from edge_k3s.cargo import image_cargo, k3s_cargo, script_cargo
from edge_k3s.forms.ansible import as_ansible
from edge_k3s.forms.cloud import USER_DATA, as_cloud_init
from edge_k3s.forms.iso import ISO, as_iso, check_iso
from edge_k3s.forms.kairos import CONFIG, as_kairos
from edge_k3s.forms.packed import check_small
from edge_k3s.kit import Form, as_folder
from edge_k3s.names import check_time, minor_of, parse_labels
from edge_k3s.sealing import Sealer
from edge_k3s.spec import RESTART, KitSummary, Machine
from edge_k3s.table import Row, read_table
from edge_k3s.tree import File, Tree
from edge_models.errors import ConfigError

app = typer.Typer(add_completion=False)
"""Holds the command for the group `edge-agent node`, which takes it over."""


class Format(StrEnum):
    """The shape of a kit."""

    DIR = "dir"
    CLOUD_INIT = "cloud-init"
    ISO = "iso"
    ANSIBLE = "ansible"
    KAIROS = "kairos"


_FORMS: dict[Format, tuple[Form, str]] = {
    Format.DIR: (as_folder, "README.txt"),
    Format.CLOUD_INIT: (as_cloud_init, USER_DATA),
    Format.ISO: (as_iso, ISO),
    Format.ANSIBLE: (as_ansible, "inventory.yml"),
    Format.KAIROS: (as_kairos, CONFIG),
}
"""The form, and the file of it that a person looks at next."""


@app.command()
def provision(
    site: Annotated[
        str | None, typer.Argument(help="The site's id, a DNS label; left out with --from.", show_default=False)
    ] = None,
    *,
    hub: Annotated[str, typer.Option(metavar="URL", envvar="EDGE_HUB", help="The hub's HTTP API.")],
    out: Annotated[
        Path, typer.Option(metavar="KIT", help="The folder to make, new or empty; with --from, of a folder a site.")
    ],
    table: Annotated[
        Path | None,
        typer.Option("--from", metavar="CSV", help="Many sites: a table with a column `site` and one a label."),
    ] = None,
    release: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="The release to start from: YAML with `release` and `agents`; left out: the one its hub sends.",
        ),
    ] = None,
    token_file: Annotated[
        Path | None, typer.Option(metavar="FILE", envvar="EDGE_HUB_TOKEN_FILE", help="The operator's token.")
    ] = None,
    label: Annotated[
        list[str] | None, typer.Option("--label", "--labels", metavar="KEY=VALUE", help="A label; repeat.")
    ] = None,
    label_key: Annotated[
        list[str] | None, typer.Option(metavar="KEY", help="A label key that no site has yet; repeat.")
    ] = None,
    format_: Annotated[Format, typer.Option("--format", help="The shape of the kit.")] = Format.DIR,
    airgap: Annotated[bool, typer.Option("--airgap", help="The node asks no network for k3s or images.")] = False,
    k3s: Annotated[Path | None, typer.Option(metavar="FILE", help="The k3s binary, to bring along.")] = None,
    k3s_sha256: Annotated[
        str | None, typer.Option("--k3s-sha256", metavar="HEX", help="What it must be; from the release's page.")
    ] = None,
    k3s_version: Annotated[
        str | None, typer.Option("--k3s-version", metavar="VERSION", help="Its version, as v1.35.2+k3s1.")
    ] = None,
    k3s_install: Annotated[
        Path | None, typer.Option("--k3s-install", metavar="FILE", help="Its install script; left out: ours.")
    ] = None,
    image_tar: Annotated[
        list[Path] | None, typer.Option(metavar="FILE", help="A tarball of images to bring along; repeat.")
    ] = None,
    replace: Annotated[
        bool, typer.Option("--replace", help="New kits for sites the hub knows; the old ones end, labels stay.")
    ] = False,
    join_days: Annotated[int, typer.Option(min=1, max=90, help="For so long the kit can join.")] = 7,
    image: Annotated[str, typer.Option(metavar="NAME:TAG", help="The image the pod runs.")] = DEFAULT_IMAGE,
    broker: Annotated[
        str | None,
        typer.Option(metavar="URL", help="The hub's broker as the site reaches it; left out: as the hub says."),
    ] = None,
    enrol: Annotated[
        str | None,
        typer.Option(metavar="URL", help="The hub's place for enrolment, as the site reaches it; left out: the same."),
    ] = None,
    local_broker: Annotated[
        str | None, typer.Option(metavar="URL", help="The broker of sensors and machines; left out: the hub's.")
    ] = None,
    sensors_image: SensorsImageOption = None,
    sensor_network: SensorNetworkOption = None,
    sensor_port: SensorPortOption = 31883,
    gpus: GpusOption = 0,
    monitoring: MonitoringOption = None,
    hub_network: Annotated[
        list[str] | None, typer.Option(metavar="CIDR", help="A network the hub's broker is in; repeat.")
    ] = None,
    grant: Annotated[
        list[str] | None, typer.Option(metavar="TOOL", help="Also let agents call this tool; repeat.")
    ] = None,
    api_port: Annotated[int, typer.Option(min=0, max=65535, help="Of the local API outside k3s; 0: any.")] = 8080,
    restart: Annotated[
        str, typer.Option(metavar="TIME", help="When k3s may restart for its certificates, as systemd writes it.")
    ] = RESTART,
    trust: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR",
            envvar=TRUST_VARIABLE,
            help="The operator's folder, whose targets key signs the kit; made where the hub has no operator yet.",
            show_default=str(default_folder()),
        ),
    ] = None,
    keys: KeysOption = None,
    passphrase_file: PassphraseOption = None,
    no_passphrase: PlainOption = False,
    unsigned: Annotated[bool, typer.Option("--unsigned", help="Do not sign the kit.")] = False,
    root: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="The root of trust; left out: the signer's, or as the hub says."),
    ] = None,
    summary: Annotated[
        Path | None, typer.Option(metavar="FILE", help="With --from: where the list goes, .csv or .json.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object on stdout.")] = False,
) -> None:
    """Register a site at its hub and write its signed kit: everything that makes a machine its node.

    Example: edge-agent node provision plant-07 --hub https://hub.example.com --token-file operator.token
    --label kind=factory --release release.yaml --airgap --k3s k3s --image-tar images.tar.zst --out kits/plant-07
    """
    wish = Wish(
        release_file=release,
        image=image,
        broker=broker,
        enrol=enrol,
        local_broker=local_broker,
        hub_networks=tuple(hub_network or ()),
        grants=tuple(grant or ()),
        api_port=api_port,
        replace=replace,
        join_days=join_days,
        label_keys=tuple(label_key or ()),
        root_file=root,
        pod=PodWish(gpus, sensors_image, tuple(sensor_network or ()), sensor_port, monitoring),
        form=_FORMS[format_][0],
    )
    if unsigned and trust is not None:
        raise ConfigError("either --unsigned, or --trust DIR to sign with: not both")
    rows = _rows(site, table, label or [])
    client = HubClient(hub, read_token(token_file))
    machine = _machine(airgap, k3s, k3s_sha256, k3s_version, k3s_install, image_tar or [], restart)
    _check_form(format_, machine)
    wish = dataclasses.replace(wish, machine=machine)

    def signing() -> tuple[Sealer, bytes] | None:
        return None if unsigned else find_sealer(trust, keys or (), passphrase_file, no_passphrase, client)

    if table is None:
        made = provision_kit(wish, rows[0], client, out, signing)
        _say_one(made, out / _FORMS[format_][1], as_json)
    else:
        _many(wish, rows, client, out, signing, summary, as_json)


def _rows(site: str | None, table: Path | None, labels: list[str]) -> list[Row]:
    common = parse_labels(labels)
    if table is None:
        if site is None:
            raise ConfigError("which site? Give its id, or a table of many with --from sites.csv")
        return [Row(site, common)]
    if site is not None:
        raise ConfigError("either one site, or a table with --from: not both")
    rows = []
    for row in read_table(table):
        if both := sorted(set(common).intersection(row.labels)):
            raise ConfigError(f"label {both[0]!r} is given by --label and, for {row.site}, in {table}")
        rows.append(Row(row.site, {**common, **row.labels}))
    return rows


def _machine(
    airgap: bool,
    k3s: Path | None,
    k3s_sha256: str | None,
    k3s_version: str | None,
    k3s_install: Path | None,
    image_tars: list[Path],
    restart: str,
) -> Machine:
    check_time(restart)
    if k3s is None:
        if airgap:
            raise ConfigError("--airgap: the kit has to bring k3s: name its binary with --k3s FILE")
        if k3s_sha256 or k3s_version or k3s_install:
            raise ConfigError("--k3s-sha256, --k3s-version and --k3s-install go with --k3s FILE")
        return Machine(cargo=image_cargo(image_tars), restart=restart)
    if k3s_version is not None:
        minor_of(k3s_version)
    binary, arch = k3s_cargo(k3s, k3s_sha256)
    if k3s_sha256 is None:
        said = f"mind: k3s was held against no hash (--k3s-sha256); it has {binary.sha256}"
        talk.print(said, markup=False, soft_wrap=True)
    cargo = [binary, *image_cargo(image_tars)]
    if k3s_install is not None:
        cargo.append(script_cargo(k3s_install))
    return Machine(tuple(cargo), arch, k3s_version, airgap, restart)


def _check_form(form: Format, machine: Machine) -> None:
    if form is Format.ISO:
        check_iso()
    if form is Format.CLOUD_INIT:
        check_small(machine.cargo, form, "use --format iso, which has")
    if form is Format.KAIROS:
        check_small(machine.cargo, form, "Kairos brings k3s; images go into its own image, as a bundle")
    if form is Format.ANSIBLE and machine.k3s_version is None:
        raise ConfigError("--format ansible: its roles want a version: give --k3s FILE and --k3s-version VERSION")


def _say_one(made: KitSummary, look: Path, as_json: bool) -> None:
    for warning in made.warnings:
        talk.print(f"mind: {warning}", markup=False, soft_wrap=True)
    if as_json:
        emit_json(_plain(made))
        return
    agents = ", ".join(made.agents) or "no agents"
    data.print(f"{made.path}: {made.site}, release {made.release} ({agents}), {made.files} files", markup=False)
    talk.print(f"next: {look}", markup=False, soft_wrap=True)


def _many(
    wish: Wish,
    rows: Sequence[Row],
    client: HubClient,
    out: Path,
    signing: Signing,
    summary: Path | None,
    as_json: bool,
) -> None:
    name = summary.name if summary is not None else "summary.csv"
    if not name.endswith((".csv", ".json")):
        raise ConfigError(f"--summary {summary}: name it .csv or .json")
    if summary is not None and summary.exists():
        raise ConfigError(f"--summary {summary}: is there already")

    def listed(made: Sequence[KitSummary]) -> Tree:
        return {} if summary is not None else {name: File(_list(made, name))}

    with _progress(len(rows)) as done:
        made = provision_kits(wish, rows, client, out, signing, done, listed)
    if summary is not None:
        try:
            summary.write_bytes(_list(made, name))
        except OSError as error:
            raise ConfigError(f"--summary {summary}: {error.strerror}; the kits are made: {out}") from None
    for warning in dict.fromkeys(warning for each in made for warning in each.warnings):
        count = sum(warning in each.warnings for each in made)
        talk.print(f"mind: {warning} ({count} of {len(made)} sites)", markup=False, soft_wrap=True)
    if as_json:
        emit_json({"kits": [_plain(each) for each in made]})
    else:
        data.print(f"{out}: {len(made)} kits, release {made[0].release}", markup=False)
        talk.print(f"the list: {summary or out / name}", markup=False, soft_wrap=True)


@contextmanager
def _progress(total: int) -> Iterator[Callable[[str], None]]:
    """Something to look at, where somebody looks."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=talk, transient=True, disable=not talk.is_terminal) as bar:
        task = bar.add_task("kits", total=total)
        yield lambda _: bar.advance(task)


def _list(made: Sequence[KitSummary], name: str) -> bytes:
    if name.endswith(".json"):
        return orjson.dumps([_plain(each) for each in made], option=orjson.OPT_INDENT_2) + b"\n"
    text = io.StringIO(newline="")
    rows = csv.writer(text)
    rows.writerow(("site", "kit", "release", "agents", "joins_until", "sums_sha256"))
    for each in made:
        ends = each.token_expires_us
        until = "" if ends is None else f"{datetime.fromtimestamp(ends / 1e6, UTC):%Y-%m-%dT%H:%M:%SZ}"
        rows.writerow((each.site, each.path, each.release, " ".join(each.agents), until, each.sums_sha256))
    return text.getvalue().encode()


def _plain(made: KitSummary) -> dict[str, Any]:
    return {**dataclasses.asdict(made), "path": str(made.path)}
