"""Records and the chain around one, as people and their scripts see them."""

from datetime import UTC, datetime
from typing import Any

from rich.markup import escape
from rich.tree import Tree

from edge_agent.memory.queries import Record
from edge_sync.explain import Explanation


def to_json(record: Record) -> dict[str, Any]:
    """A record as people's scripts see it."""
    return {
        "id": record.id,
        "at_us": record.at,
        "kind": record.kind,
        "agent": record.agent,
        "subject": record.subject,
        "label": record.label,
        "score": record.score,
        "ref": record.ref,
        "body": record.body,
        "hash": record.hash.hex(),
    }


def explanation_tree(found: Explanation[Record], asked: str) -> Tree:
    """The chain as a small picture: each record under what it follows from."""
    tree = Tree(f"[bold]why[/] {asked}")
    branches: dict[str, Tree] = {}
    for gone in found.missing:
        branches[gone] = tree.add(f"[dim]{gone} (no longer held here)[/]")
    for record in found.chain:
        parent = branches.get(record.ref or "", tree)
        branches[record.id] = parent.add(_line(record, asked))
    return tree


def _line(record: Record, asked: str) -> str:
    mark = "[bold yellow]▶[/] " if record.id == asked else ""
    what = " · ".join(escape(part) for part in in_short(record))
    return f"{mark}[cyan]{escape(record.kind)}[/] {what}\n[dim]{utc(record.at)}  {record.id}[/]"


def in_short(record: Record) -> list[str]:
    """What a person wants to know of one record, in a few words each."""
    body = record.body
    if record.kind == "observation":
        return [record.subject or record.agent, _shorten({k: v for k, v in body.items() if not k.startswith("_")})]
    if record.kind == "prediction":
        return [_with_score(record), f"model {body.get('version')!s}", _digest(body.get("model"))]
    if record.kind == "decision":
        policy = _map(body.get("policy"))
        why = f"abstained: {body['abstained']}" if "abstained" in body else f"rule {record.label}"
        return [
            why,
            f"policy {policy.get('name')} {policy.get('version')} {_digest(policy.get('digest'))}",
            _tried(body),
        ]
    if record.kind == "action":
        return [f"{record.label} {body.get('status')}", _shorten({k: v for k, v in body.items() if k != "status"})]
    return [record.label or "", _shorten(body)]


def _with_score(record: Record) -> str:
    return str(record.label) if record.score is None else f"{record.label} {record.score:.3f}"


def _tried(body: dict[str, Any]) -> str:
    """The rules' conditions; a body that was too large was left without them."""
    conditions = [_map(each) for each in body.get("conditions") or []]
    return ", ".join(f"{c.get('rule')}={'true' if c.get('value') else c.get('error') or 'false'}" for c in conditions)


def _map(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _digest(value: object) -> str:
    return str(value)[:19]


def _shorten(value: dict[str, Any]) -> str:
    parts = []
    for key, each in value.items():
        shown = each
        if isinstance(each, list) and len(each) > 6:
            shown = f"[{', '.join(str(_rounded(x)) for x in each[:3])}, … {len(each)} values]"
        parts.append(f"{key}={_rounded(shown)}")
    return " ".join(parts)[:160]


def _rounded(value: Any) -> Any:
    return float(f"{value:.5g}") if isinstance(value, float) else value


def utc(at_us: int) -> str:
    """A time for a person; a site without a clock may have written any."""
    try:
        return datetime.fromtimestamp(at_us / 1e6, UTC).strftime("%Y-%m-%d %H:%M:%S.%f")[:-3]
    except (ValueError, OverflowError, OSError):
        return f"{at_us} µs"
