"""Writing a hub's manifests into a folder: all of them, or none."""

from dataclasses import dataclass
from pathlib import Path

from edge_k3s.hub.checks import check_hub
from edge_k3s.hub.network import opens_anywhere
from edge_k3s.hub.rendering import SECRETS_FILE, render_hub
from edge_k3s.hub.spec import HubSpec
from edge_k3s.tree import File, becoming, check_out, write_tree


@dataclass(frozen=True, slots=True)
class Written:
    """Manifests that were written."""

    path: Path
    files: tuple[str, ...]
    """In the order they are to be applied."""
    warnings: tuple[str, ...]
    """What a person should know before they apply them, a line each."""


def write_hub(spec: HubSpec, out: Path) -> Written:
    """Write a hub's manifests into the folder `out`, which must be new or empty.

    The same spec gives the same bytes. Raises `ConfigError`, leaving nothing behind, where the spec is wrong, or `out`
    holds something or cannot be written.
    """
    check_hub(spec)
    texts = render_hub(spec)
    check_out(out, called=str(out))
    with becoming(out, called=str(out)) as part:
        write_tree({name: File(text.encode(), _mode(name)) for name, text in texts.items()}, part)
    return Written(out, tuple(texts), _warnings(spec))


def _mode(name: str) -> int:
    return 0o600 if name == SECRETS_FILE else 0o644


def _warnings(spec: HubSpec) -> tuple[str, ...]:
    lines = [f"the pod may reach the port of {url} at any address: name its networks" for url in opens_anywhere(spec)]
    if spec.secrets.names is not None and "operator.token" not in spec.secrets.names:
        lines.append("no operator.token is given: the hub makes one, which only lies in its volume")
    if spec.secrets.values:
        lines.append(
            f"{SECRETS_FILE} holds secrets as anybody can read them: apply it, and keep it out of repositories"
        )
    if spec.broker is None:
        lines.append("the hub's own broker runs beside its keys, as the same user: whoever takes it over can read them")
    else:
        lines.append(f"sites come to {spec.broker.url} by password: enrolment needs the hub's own broker")
    return tuple(lines)
