"""Building an image: base, dependencies, what the role has more, and on top the kit, which alone moves in an update."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from edge_k3s.image.base import (
    BROKER,
    DATA,
    PROXY,
    PYTHON,
    UID,
    check_architecture,
    ground,
    interpreter,
    select,
    target_of,
)
from edge_k3s.image.bytecode import can_compile, compiled
from edge_k3s.image.check import check_tree
from edge_k3s.image.dpkg import Package, Root, read_root
from edge_k3s.image.install import VENV, environment, install_wheel
from edge_k3s.image.oci import compress, make_image, make_layer
from edge_k3s.image.sbom import PATH, bill_of_materials
from edge_k3s.image.spec import EXTRAS, NAMES, ImageSpec, ImageSummary, LayerSummary, Part
from edge_k3s.image.tree import AT_S, Entry, File, Tree, pack
from edge_k3s.image.wheels import KIT, Wheel, choose, metadata_of, read_house
from edge_models.durable import replace
from edge_models.errors import ConfigError

_PATH = f"/{VENV}/bin:/usr/bin:/usr/sbin"


@dataclass(slots=True)
class _Draft:
    """Layers as they come together."""

    layers: list[tuple[str, dict[str, Entry]]] = field(default_factory=list)
    parts: list[tuple[str, str, str, Tree]] = field(default_factory=list)
    """Layer, name, version, files."""
    packages: list[Package] = field(default_factory=list)
    wheels: list[Wheel] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    version: str = ""

    def add(self, layer: str, tree: dict[str, Entry], parts: Iterable[tuple[str, str, Tree]]) -> None:
        self.layers.append((layer, tree))
        self.parts += [(layer, *part) for part in parts]


def build(spec: ImageSpec, with_parts: bool = False) -> ImageSummary:
    """Write the image. `with_parts`: also say how large each package is, which takes as long again.

    The same spec over the same files gives the same bytes. Raises `ConfigError` for a base or wheels that lack
    something or can't be read, `RejectedError` for a wheel that is not what it says; nothing is written then.
    """
    if not spec.out.parent.is_dir():
        raise ConfigError(f"--out {spec.out}: there is no folder {spec.out.parent}")
    root = read_root(spec.base)
    draft = _Draft()
    if spec.role in EXTRAS:
        _with_python(spec, root, draft)
    else:
        _without_python(spec, root, draft)
    check_tree({path: entry for _, tree in draft.layers for path, entry in tree.items()})
    name = spec.name or NAMES[spec.role]
    created = _rfc3339(AT_S if spec.created_s is None else spec.created_s)
    bill = bill_of_materials(draft.wheels, draft.packages, _distribution(root), name)
    draft.layers[-1][1][PATH] = File(bill)
    layers = [make_layer(layer, tree, spec.level) for layer, tree in draft.layers]
    image = make_image(
        name,
        draft.version,
        layers,
        architecture=spec.platform.partition("/")[2],
        created=created,
        run=_run(spec, draft, created),
    )
    try:
        replace(spec.out, image.archive)
    except OSError as error:
        raise ConfigError(f"--out {spec.out}: {error.strerror}") from None
    return ImageSummary(
        path=spec.out,
        reference=image.reference,
        role=spec.role,
        platform=spec.platform,
        digest=image.digest,
        image_id=image.image_id,
        size_bytes=len(image.archive),
        layers=tuple(LayerSummary(each.name, each.digest, len(each.blob), each.tar_bytes) for each in layers),
        parts=_measured(draft, spec.level) if with_parts else (),
        warnings=tuple(draft.warnings),
        bill=bill,
    )


def _with_python(spec: ImageSpec, root: Root, draft: _Draft) -> None:
    if spec.wheels is None:
        raise ConfigError(f"--wheels: an image of role {spec.role} needs a folder of wheels")
    target = target_of(root, spec.platform)
    tree, packages = select(root, PYTHON)
    python, version = interpreter(tree)
    compiles = can_compile(version)
    if not compiles:
        draft.warnings.append(
            f"no module is compiled: that takes Python {version[0]}.{version[1]}, as in the base; each start is slower"
        )

    def with_bytecode(files: dict[str, Entry]) -> dict[str, Entry]:
        return files | compiled(files, version) if compiles else files

    draft.packages += packages
    draft.add("base", with_bytecode(tree | ground(root)), ((p.name, p.version, _of(p, tree)) for p in packages))

    house = read_house(spec.wheels)
    least = choose(house, (), target, {})
    extras = sorted({*EXTRAS[spec.role], *spec.extras})
    _check_extras(least[KIT], extras)
    # What every site has is chosen first: the layer of it is the same in every image.
    whole = choose(house, extras, target, least)
    draft.wheels += whole.values()
    draft.version = str(whole[KIT].version)

    def add(layer: str, names: Iterable[str], before: Mapping[str, Entry]) -> None:
        trees = {name: with_bytecode(install_wheel(whole[name], version)) for name in sorted(names)}
        files = {path: entry for tree in trees.values() for path, entry in tree.items()}
        draft.add(layer, {**before, **files}, ((name, str(whole[name].version), t) for name, t in trees.items()))

    add("dependencies", least.keys() - {KIT}, environment(python, version))
    broker: dict[str, Entry] = {}
    if spec.role == "hub":
        chosen, packages = select(root, BROKER)
        known = {package.name for package in draft.packages}
        broker = {path: entry for path, entry in chosen.items() if path not in tree}
        more = [package for package in packages if package.name not in known]
        draft.packages += more
        draft.parts += [("extras", p.name, p.version, _of(p, broker)) for p in more]
    if whole.keys() > least.keys() or broker:
        add("extras", whole.keys() - least.keys(), broker)
    add("kit", (KIT,), {})


def _without_python(spec: ImageSpec, root: Root, draft: _Draft) -> None:
    """A program of Debian's alone."""
    selection = BROKER if spec.role == "broker" else PROXY
    program = selection.programs[0]
    check_architecture(root, spec.platform)
    tree, packages = select(root, selection)
    draft.packages += packages
    draft.version = next(p.version for p in packages if p.name == program).partition("-")[0]
    draft.add("base", tree | ground(root), ((p.name, p.version, _of(p, tree)) for p in packages))


def _run(spec: ImageSpec, draft: _Draft, created: str) -> dict[str, Any]:
    """How a container of it runs. Source: OCI image-spec, config; annotations."""
    about = {
        "site": ("Agents at a site", ["edge-agent"]),
        "hub": ("The hub of a fleet of sites", ["edge-agent"]),
        "broker": ("Mosquitto without a shell", ["/usr/sbin/mosquitto"]),
        "proxy": ("HAProxy without a shell", ["/usr/sbin/haproxy"]),
    }
    title, entrypoint = about[spec.role]
    environment = {"PATH": _PATH, "LANG": "C.UTF-8", "HOME": "/tmp"}  # noqa: S108 - the one folder one may write to
    if spec.role in EXTRAS:
        environment |= {
            # onnxruntime reports its use to its makers unless it is told not to.
            "ORT_DISABLE_TELEMETRY": "1",
            "PYTHONDONTWRITEBYTECODE": "1",
            "PYTHONUNBUFFERED": "1",
        }
    kit = next((wheel for wheel in draft.wheels if wheel.name == KIT), None)
    licence = metadata_of(kit).license_expression if kit else None
    return {
        "User": f"{UID}:{UID}",
        "Env": [f"{key}={value}" for key, value in environment.items()],
        "Entrypoint": entrypoint,
        "WorkingDir": f"/{DATA}",
        "Labels": {
            "org.opencontainers.image.title": title,
            "org.opencontainers.image.version": draft.version,
            "org.opencontainers.image.created": created,
            "edge-agent-kit/role": spec.role,
        }
        | ({"org.opencontainers.image.licenses": str(licence)} if licence else {}),
    }


def _check_extras(kit: Wheel, extras: Sequence[str]) -> None:
    known = metadata_of(kit).provides_extra or []
    for extra in extras:
        if extra not in known:
            raise ConfigError(f"--extra {extra!r}: {kit.path.name} knows {', '.join(known)}")


def _of(package: Package, tree: Tree) -> Tree:
    return {path: tree[path] for path in package.paths if path in tree}


def _measured(draft: _Draft, level: int) -> tuple[Part, ...]:
    parts = []
    for layer, name, version, tree in draft.parts:
        size = sum(len(entry.data) for entry in tree.values() if isinstance(entry, File))
        parts.append(Part(layer, name, version, size, len(compress(pack(tree), level))))
    return tuple(sorted(parts, key=lambda part: -part.compressed_bytes))


def _distribution(root: Root) -> str:
    """As in ``debian-12``."""
    release = root.files.get("usr/lib/os-release")
    text = release.data.decode() if isinstance(release, File) else ""
    fields = dict(line.partition("=")[::2] for line in text.splitlines())
    return "-".join(fields[key].strip('"') for key in ("ID", "VERSION_ID") if key in fields) or "debian"


def _rfc3339(seconds: int) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
