"""What is in a kit, and writing one, or hundreds: all of it, or nothing of it."""

import hashlib
import os
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from importlib.metadata import version
from pathlib import Path

from edge_k3s import kitenv, settings
from edge_k3s.names import check_file, check_image, check_labels, check_site, check_time
from edge_k3s.network import check_networks, opens_anywhere
from edge_k3s.rendering import SECRETS_FILE, render
from edge_k3s.sealing import KEY, SIGNATURE, SUMS, Sealer, fingerprint, public_pem, sums_of
from edge_k3s.sitefile import FOLDER, site_file
from edge_k3s.spec import Cargo, KitSpec, KitSummary
from edge_k3s.technician import page
from edge_k3s.tree import File, Tree, becoming, check_out, copy_cargo, size_of, write_tree
from edge_k3s.yamltext import dump
from edge_models.errors import ConfigError

AIRGAP = "airgap"
"""The folder of what a node would fetch from a network that it may not have; as k3s-ansible's `airgap_dir`."""

_SITE_HEADER = "# The site file; its paths begin here. What each key means: `edge_agent.config`, and k3s/README.md.\n"

Form = Callable[[KitSpec, Tree, str | None], Tree]
"""`(spec, kit, key that signed it)` → another shape of it."""


def as_folder(spec: KitSpec, kit: Tree, key: str | None) -> Tree:  # noqa: ARG001 - a `Form`
    """The kit as it is."""
    return kit


def check_spec(spec: KitSpec) -> None:
    """Raises `ConfigError` for the first name in `spec` that is not allowed."""
    check_site(spec.site)
    check_labels(spec.labels)
    check_image(spec.image)
    check_networks(spec.hub_networks)
    check_time(spec.machine.restart)
    for each in spec.machine.cargo:
        check_file(each.name)


def seal(spec: KitSpec, sealer: Sealer | None) -> Tree:
    """Every file of the kit, with the sums of them all and, by `sealer`, its signature. The same spec and sealer give
    the same bytes. Raises `ConfigError` for a name that is not allowed.
    """
    check_spec(spec)
    tree: dict[str, File | Cargo] = dict(_files(spec, sealer is not None))
    if sealer is not None:
        tree[KEY] = File(public_pem(sealer.public))
    tree |= {f"{AIRGAP}/{each.name}": each for each in spec.machine.cargo}
    sums = sums_of({path: _digest(each) for path, each in tree.items()})
    tree[SUMS] = File(sums)
    if sealer is not None:
        tree[SIGNATURE] = File(sealer.sign(sums))
    return tree


def write_kit(spec: KitSpec, out: Path, sealer: Sealer | None = None, form: Form = as_folder) -> KitSummary:
    """Write the kit of a site into the folder `out`, which must be new or empty; without `sealer` it is not signed.

    Raises `ConfigError`, leaving nothing behind, when a name is not allowed, `out` holds something or cannot be
    written.
    """
    check_spec(spec)
    check_out(out)
    kit = seal(spec, sealer)
    tree = form(spec, kit, sealer.public if sealer else None)
    with becoming(out) as part:
        write_tree(tree, part)
    return _summary(spec, out, kit)


def write_kits(
    specs: Sequence[KitSpec],
    out: Path,
    sealer: Sealer | None = None,
    form: Form = as_folder,
    done: Callable[[str], None] = lambda _: None,
    extra: Callable[[Sequence[KitSummary]], Tree] = lambda _: {},
) -> list[KitSummary]:
    """Write the kits of many sites as ``out/SITE``, all or none, several at a time; `done` is told of each.

    What several of them carry lies on the disk once: they are links to one file. `extra`: further files in `out`.
    Raises `ConfigError`, leaving nothing behind, as `write_kit`, and where two have one site.
    """
    check_once([spec.site for spec in specs])
    check_out(out)
    for spec in specs:
        check_spec(spec)
    with becoming(out, many=True) as part:
        stock = part / ".stock"
        stock.mkdir()
        for cargo in {each.name: each for spec in specs for each in spec.machine.cargo}.values():
            copy_cargo(cargo, stock / cargo.name)

        def write(spec: KitSpec) -> KitSummary:
            kit = seal(spec, sealer)
            tree = form(spec, kit, sealer.public if sealer else None)
            folder = part / spec.site
            folder.mkdir()
            write_tree(tree, folder, stock)
            folder.chmod(0o755)
            done(spec.site)
            return _summary(spec, out / spec.site, kit)

        # Two wait for the disk and hash while one computes.
        with ThreadPoolExecutor((os.cpu_count() or 1) + 1) as pool:
            summaries = list(pool.map(write, specs))
        for each in stock.iterdir():
            each.unlink()
        stock.rmdir()
        write_tree(extra(summaries), part)
    return summaries


def check_once(sites: Iterable[str]) -> None:
    """Raises `ConfigError` where one of them stands twice."""
    seen: set[str] = set()
    for site in sites:
        if site in seen:
            raise ConfigError(f"site {site} stands twice: two kits with one id would disturb each other")
        seen.add(site)


def _files(spec: KitSpec, signed: bool) -> dict[str, File]:
    """Path in the kit → file, without those that speak of the others."""
    files = {
        "README.txt": File(page(spec, signed).encode()),
        settings.INSTALLER: File(settings.installer(), 0o755),
        kitenv.NAME: File(kitenv.write_env(kitenv.facts_of(spec, version("edge-agent-kit"))).encode()),
        "site.yaml": File((_SITE_HEADER + dump(site_file(spec, FOLDER))).encode()),
        "root.json": File(spec.root),
    }
    for name, secret in spec.secrets.items():
        files[f"secrets/{name}"] = File(secret.encode(), 0o600)
    for agent in spec.agents:
        files[f"release/{agent.name}.bundle"] = File(agent.bundle)
        files[f"release/{agent.name}.policy.yaml"] = File(agent.policy)
    for name, text in render(spec).items():
        files[f"manifests/{name}"] = File(text.encode(), 0o600 if name == SECRETS_FILE else 0o644)
    for name, data in settings.node_files(spec).items():
        files[f"{settings.FOLDER}/{name}"] = File(data)
    return files


def _digest(each: File | Cargo) -> str:
    return hashlib.sha256(each.data).hexdigest() if isinstance(each, File) else each.sha256


def _summary(spec: KitSpec, out: Path, kit: Tree) -> KitSummary:
    sums = kit[SUMS]
    assert isinstance(sums, File)  # noqa: S101 - `seal` made it
    return KitSummary(
        site=spec.site,
        path=out,
        release=spec.release,
        agents=tuple(agent.name for agent in spec.agents),
        image=spec.image,
        files=len(kit),
        size_bytes=size_of(kit),
        sums_sha256=fingerprint(sums.data),
        signed=SIGNATURE in kit,
        token_expires_us=spec.enrol.expires_us if spec.enrol else None,
        warnings=warnings_of(spec),
    )


def warnings_of(spec: KitSpec) -> tuple[str, ...]:
    """What a person should know before they carry the kit to its site, a line each."""
    warnings = []
    if not spec.release:
        warnings.append("no release: the site waits for the one that its hub sends")
    elif not spec.agents:
        warnings.append(f"no agent of release {spec.release} runs at a site with these labels")
    if spec.pod.sensors is None:
        warnings += _on_brokers(spec)
    if opens_anywhere(spec):
        warnings.append(f"the pod may reach port {spec.hub.port} of any address: name the hub's networks to close that")
    if spec.pod.gpus:
        warnings.append(f"{spec.image} needs an onnxruntime with CUDA: without one the site refuses to start")
    if spec.machine.airgap:
        warnings += _on_images(spec)
    return tuple(warnings)


def _on_images(spec: KitSpec) -> list[str]:
    tars = [each for each in spec.machine.cargo if ".tar" in each.name]
    if not tars:
        return ["no image is in this kit: without a network the node needs those of k3s and of the site"]
    names = {name.removeprefix("docker.io/").removeprefix("library/") for each in tars for name in each.images or ()}
    if any(each.images is None for each in tars):  # they may be in that one
        return []
    missing = [] if spec.image.removeprefix("docker.io/").removeprefix("library/") in names else [spec.image]
    missing += [] if any(name.startswith("rancher/") for name in names) else ["what k3s itself runs (rancher/…)"]
    return [f"no tarball in this kit holds {each}: without a network it never starts" for each in missing]


def _on_brokers(spec: KitSpec) -> list[str]:
    if spec.hub.on_this_machine or spec.local.on_this_machine:
        url = spec.hub.url if spec.hub.on_this_machine else spec.local.url
        return [f"{url} is this machine: `edge-agent run` works here, a pod would find no broker there"]
    if spec.local.url == spec.hub.url and spec.enrol is not None:
        return [
            "the hub's broker takes certificates only: name the broker of sensors and machines, or agents see nothing"
        ]
    if spec.local.url == spec.hub.url:
        return ["sensors and machines are reached over the hub's broker: offline, the site would see nothing"]
    return []
