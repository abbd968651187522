"""Writing a kit: all of it, or nothing of it."""

import hashlib
import os
import shutil
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from edge_k3s.names import check_image, check_labels, check_site
from edge_k3s.network import check_networks, opens_anywhere
from edge_k3s.rendering import SECRETS_FILE, render
from edge_k3s.sitefile import FOLDER, site_file
from edge_k3s.spec import KitSpec, KitSummary
from edge_k3s.technician import page
from edge_k3s.yamltext import dump
from edge_models.durable import sync
from edge_models.errors import ConfigError

_SITE_HEADER = "# The site file; its paths begin here. What each key means: `edge_agent.config`, and k3s/README.md.\n"


@dataclass(frozen=True, slots=True)
class _File:
    data: bytes
    mode: int = 0o644


def write_kit(spec: KitSpec, out: Path) -> KitSummary:
    """Write the kit of a site into the folder `out`, which must be new or empty.

    The same spec gives the same bytes. Raises `ConfigError`, leaving nothing behind, when a name is not allowed, `out`
    holds something or cannot be written.
    """
    check_site(spec.site)
    check_labels(spec.labels)
    check_image(spec.image)
    check_networks(spec.hub_networks)
    check_out(out)
    files = _contents(spec)
    files["SHA256SUMS"] = _File(_sums(files))
    try:
        _write(files, out)
    except OSError as error:
        raise ConfigError(f"kit {out}: {error.strerror}") from None
    return KitSummary(
        site=spec.site,
        path=out,
        release=spec.release,
        agents=tuple(agent.name for agent in spec.agents),
        image=spec.image,
        files=len(files),
        size_bytes=sum(len(file.data) for file in files.values()),
        warnings=_warnings(spec),
    )


def check_out(out: Path) -> None:
    """Raises `ConfigError` where a kit cannot be put at `out` since something is there."""
    try:
        taken = out.is_symlink() or (any(out.iterdir()) if out.is_dir() else out.exists())
    except OSError as error:
        raise ConfigError(f"kit {out}: {error.strerror}") from None
    if taken:
        raise ConfigError(f"kit {out}: something is there already: name a new folder or remove it first")


def _contents(spec: KitSpec) -> dict[str, _File]:
    """Path in the kit → file."""
    files = {
        "README.txt": _File(page(spec).encode()),
        "site.yaml": _File((_SITE_HEADER + dump(site_file(spec, FOLDER))).encode()),
    }
    files["root.json"] = _File(spec.root)
    for name, secret in spec.secrets.items():
        files[f"secrets/{name}"] = _File(secret.encode(), 0o600)
    for agent in spec.agents:
        files[f"release/{agent.name}.bundle"] = _File(agent.bundle)
        files[f"release/{agent.name}.policy.yaml"] = _File(agent.policy)
    for name, text in render(spec).items():
        files[f"manifests/{name}"] = _File(text.encode(), 0o600 if name == SECRETS_FILE else 0o644)
    return files


def _sums(files: Mapping[str, _File]) -> bytes:
    """What ``sha256sum -c`` reads."""
    lines = (f"{hashlib.sha256(files[path].data).hexdigest()}  {path}\n" for path in sorted(files))
    return "".join(lines).encode()


def _write(files: Mapping[str, _File], out: Path) -> None:
    """All files, durable, in a folder beside `out` that takes its name at the end."""
    out.parent.mkdir(parents=True, exist_ok=True)
    part = Path(tempfile.mkdtemp(prefix=f".{out.name}.", suffix=".part", dir=out.parent))
    try:
        folders = {Path("secrets"), Path("release"), Path("manifests")}
        for folder in folders:
            (part / folder).mkdir(mode=0o700)
        for path, file in files.items():
            _write_file(part / path, file)
        # Modes are set, not asked of mkdir: a user's umask must neither open the secrets nor close the rest.
        for folder in folders - {Path("secrets")}:
            (part / folder).chmod(0o755)
        part.chmod(0o755)
        for folder in (*folders, Path()):
            sync(part / folder)
        part.rename(out)
        sync(out.parent)
    finally:
        # After the rename there is nothing of this name.
        shutil.rmtree(part, ignore_errors=True)


def _write_file(path: Path, file: _File) -> None:
    with open(path, "xb", opener=lambda name, flags: os.open(name, flags, 0o600)) as stream:
        stream.write(file.data)
        os.fchmod(stream.fileno(), file.mode)
        stream.flush()
        os.fsync(stream.fileno())


def _warnings(spec: KitSpec) -> tuple[str, ...]:
    warnings = []
    if not spec.agents:
        warnings.append(f"no agent of release {spec.release} runs at a site with these labels")
    if spec.hub.on_this_machine or spec.local.on_this_machine:
        url = spec.hub.url if spec.hub.on_this_machine else spec.local.url
        warnings.append(f"{url} is this machine: `edge-agent run` works here, a pod would find no broker there")
    elif spec.local.url == spec.hub.url:
        warnings.append("sensors and machines are reached over the hub's broker: offline, the site would see nothing")
    if opens_anywhere(spec):
        warnings.append(f"the pod may reach port {spec.hub.port} of any address: name the hub's networks to close that")
    return tuple(warnings)
