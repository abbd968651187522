"""`./dev e2e-k3s`: apply, wait, decide, sync, kill, count, on the cluster that KUBECONFIG names."""

import os
import secrets
import shlex
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Collection
from contextlib import suppress
from pathlib import Path
from typing import Annotated

os.environ["ORT_DISABLE_TELEMETRY"] = "1"

import typer

from edge_cluster.clearing import clear, what_it_says
from edge_cluster.desk import API_PORT, Desk
from edge_cluster.forward import Forward
from edge_cluster.images import Images, choose, load, read_reference, read_tar
from edge_cluster.kubectl import Kubectl
from edge_cluster.outcome import Failed, Outcome, Unfit, line, total
from edge_cluster.renamed import Names
from edge_cluster.sensing import SOURCE_PORT, Instruments
from edge_cluster.server import Server, check_storage, find_server
from edge_cluster.story import STORY, run, unknown_keys
from edge_cluster.trial import Trial
from edge_k3s.names import check_site
from edge_models.errors import ConfigError

HELD, BROKEN, UNFIT, INTERRUPTED = 0, 1, 2, 130


def main(
    image: Annotated[
        list[Path] | None,
        typer.Option(metavar="TAR", help="An image that `edge-agent image build` wrote; repeat for hub and site."),
    ] = None,
    image_ref: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME:TAG", help="One the nodes have or can fetch; hub=NAME:TAG and site=NAME:TAG."),
    ] = None,
    load_command: Annotated[
        str | None,
        typer.Option("--load", metavar="COMMAND", help="Brings an image to the nodes: 'k3s ctr images import {tar}'."),
    ] = None,
    keep: Annotated[bool, typer.Option("--keep", help="Leave all of it in the cluster, and say where.")] = False,
    namespace_prefix: Annotated[
        str | None, typer.Option(metavar="X", help="The namespaces X-hub and X-site; left out: new ones.")
    ] = None,
    storage_class: Annotated[str, typer.Option(metavar="NAME", help="What makes the volumes.")] = "local-path",
    without: Annotated[
        list[str] | None, typer.Option(metavar="CHECK", help="Leave this check out; repeat. --list names them.")
    ] = None,
    patience: Annotated[float, typer.Option(min=10, help="Seconds a pod may take to be ready.")] = 180.0,
    any_version: Annotated[
        bool, typer.Option("--any-version", help="Also on a Kubernetes older than the kit is for.")
    ] = False,
    kubectl: Annotated[str, typer.Option(metavar="COMMAND", help="As in 'k3s kubectl'.")] = "kubectl",
    list_checks: Annotated[bool, typer.Option("--list", help="Print the checks and end.")] = False,
) -> None:
    """Run a hub and a site on the cluster that KUBECONFIG names, break them, and count; a line a check.

    Exits 0 where all held, 1 where one did not, 2 where nothing could be checked. It touches only what it made.

    Example: KUBECONFIG=k3s.yaml ./dev e2e-k3s --image hub.tar --load 'k3s ctr images import {tar}'
    """
    if list_checks:
        print("\n".join(f"{each.key:<14} {each.name}" + ("  (always)" if each.needed else "") for each in STORY))
        return
    # However it is ended, what it made goes.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        names = _names(namespace_prefix)
        if strange := unknown_keys(without or ()):
            raise Unfit(f"--without {strange[0]!r}: no check that may be left out is called that: --list names them")
        if load_command is not None and not image:
            raise Unfit("--load goes with --image TAR: what is to be brought to the nodes?")
        tool = Kubectl(shlex.split(kubectl))
        images = _images(image or [], image_ref or [])
        server = _fitting(tool, names, storage_class, any_version)
        if load_command is not None:
            for path in image or ():
                load(load_command, path)
    except Unfit as unfit:
        print(f"nothing was checked: {unfit}", file=sys.stderr)
        raise typer.Exit(UNFIT) from None
    print(f"Kubernetes {server.text}, namespaces {names.hub} and {names.site}", flush=True)
    folder = Path(tempfile.mkdtemp(prefix="edge-check-"))
    try:
        code = _run(_trial(tool, server, names, folder, images, storage_class, patience), without or (), keep)
    finally:
        if not keep:
            shutil.rmtree(folder, ignore_errors=True)
    raise typer.Exit(code)


def _names(prefix: str | None) -> Names:
    names = Names(prefix or f"edge-check-{secrets.token_hex(3)}")
    try:
        check_site(names.site)
    except ConfigError:
        raise Unfit(f"--namespace-prefix {prefix!r}: use at most 58 of a-z, 0-9 and -, as in check") from None
    return names


def _images(tars: list[Path], references: list[str]) -> Images:
    return choose([*map(read_tar, tars), *map(read_reference, references)])


def _fitting(kubectl: Kubectl, names: Names, storage: str, any_version: bool) -> Server:
    """Raises `Unfit` where the cluster is none, or not one for this."""
    if not os.environ.get("KUBECONFIG"):
        raise Unfit("KUBECONFIG names no cluster: on a k3s it is /etc/rancher/k3s/k3s.yaml")
    server = find_server(kubectl, any_version)
    check_storage(kubectl, storage)
    try:
        for space in (names.hub, names.site):
            if kubectl.has("namespace", space):
                raise Unfit(f"the namespace {space} is there already: choose another --namespace-prefix")
    except Failed as failure:
        raise Unfit(str(failure)) from None
    return server


def _trial(
    kubectl: Kubectl, server: Server, names: Names, folder: Path, images: Images, storage: str, patience_s: float
) -> Trial:
    def hub() -> str:
        return trial.running("hub")

    def site() -> str:
        return trial.running("site")

    desk = Desk(folder, images, Forward(kubectl, names.hub, hub, API_PORT))
    instruments = Instruments(Forward(kubectl, names.site, site, SOURCE_PORT))
    trial = Trial(kubectl, server, names, desk, instruments, storage, patience_s)
    return trial


def _run(trial: Trial, without: Collection[str], keep: bool) -> int:
    """The exit code. Whatever happens, what was made goes, or is named."""
    outcomes: list[Outcome] = []
    code, began = BROKEN, time.monotonic()
    try:
        code = _judge(trial, without, outcomes)
    finally:
        trial.instruments.stop()
        trial.desk.hub.close()
        if keep:
            where = f"{trial.names.hub} and {trial.names.site}, and the operator's desk in {trial.desk.folder}"
            print(f"kept: the namespaces {where}", flush=True)
        elif left := _clear(trial):
            print("\n".join(f"left in the cluster: {each}" for each in left), file=sys.stderr)
            code = code or BROKEN
        print(f"{total(outcomes)}, in {time.monotonic() - began:.0f} s", flush=True)
    return code


def _judge(trial: Trial, without: Collection[str], outcomes: list[Outcome]) -> int:
    code = HELD
    try:
        for outcome in run(trial, without):
            outcomes.append(outcome)
            print(line(outcome), flush=True)
            if outcome.state == "FAILED":
                code = BROKEN
                print("\n".join(what_it_says(trial.kubectl, trial.names)), file=sys.stderr, flush=True)
    except Unfit as unfit:
        print(f"ended: {unfit}", file=sys.stderr)
        return UNFIT
    except KeyboardInterrupt:
        return INTERRUPTED
    return code


def _clear(trial: Trial) -> list[str]:
    if trial.made:
        print("removing what was made", file=sys.stderr, flush=True)
    with suppress(KeyboardInterrupt):  # a second one does not wait for the cluster
        return clear(trial.kubectl, trial.names, trial.made)
    return [f"{kind} {name}" for kind, name in trial.made]


if __name__ == "__main__":
    app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
    app.command()(main)
    app()
