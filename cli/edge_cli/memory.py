"""`edge-agent memory`: look into a site's journal. Works on a running site, a stopped one, or a copied file."""

import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.markup import escape
from rich.tree import Tree

from edge_agent.config import load_site
from edge_agent.memory.explain import Explanation, explain
from edge_agent.memory.queries import Record, newest, parse_id
from edge_agent.memory.schema import reading
from edge_agent.memory.verify import verify
from edge_cli.output import FOUND, data, emit_json, talk

app = typer.Typer(no_args_is_help=True, add_completion=False, help="A site's journal.")

Where = Annotated[
    Path, typer.Option("--memory", "-m", help="A memory.db, or the site file it belongs to.", show_default=True)
]
Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]
HERE = Path("site.yaml")


@app.command("tail")
def tail_command(
    memory: Where = HERE,
    lines: Annotated[int, typer.Option("--lines", "-n", min=1, max=10_000)] = 20,
    kind: Annotated[str | None, typer.Option(help="Only this kind, as in decision.")] = None,
    agent: Annotated[str | None, typer.Option(help="Only this agent.")] = None,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on with what comes.")] = False,
    as_json: Json = False,
) -> None:
    """Show the newest records.

    Example: edge-agent memory tail -m site.yaml --kind decision -n 5
    """
    path = _database(memory)
    with reading(path) as connection:
        found = newest(connection, lines, kind, agent)
        _print_records([record for _, record in found], as_json)
        last = found[-1][0] if found else 0
        while follow:
            time.sleep(0.5)
            found = newest(connection, 1000, kind, agent, after=max(last, 1))
            _print_records([record for _, record in found], as_json)
            last = found[-1][0] if found else last


@app.command("explain")
def explain_command(
    record: Annotated[str, typer.Argument(help="A record id, as EPOCH:LANE:SEQ.")],
    memory: Where = HERE,
    as_json: Json = False,
) -> None:
    """Say why something was done: observation, prediction, decision, action.

    Example: edge-agent memory explain 66b8850bbe06a2c6:decision:42 -m site.yaml
    """
    parse_id(record)
    with reading(_database(memory)) as connection:
        found = explain(connection, record)
    if as_json:
        emit_json({"chain": [to_json(each) for each in found.chain], "missing": list(found.missing)})
    else:
        data.print(explanation_tree(found, record))


@app.command("verify")
def verify_command(memory: Where = HERE, as_json: Json = False) -> None:
    """Check that the journal is what was written; exits 1 when it is not, and says where.

    Example: edge-agent memory verify -m site.yaml
    """
    with reading(_database(memory)) as connection:
        report = verify(connection)
    if as_json:
        findings = [{"epoch": f.epoch, "lane": f.lane, "seq": f.seq, "what": f.what} for f in report.findings]
        emit_json({"streams": report.streams, "rows": report.rows, "evicted": report.evicted, "findings": findings})
    else:
        talk.print(f"{report.rows} rows in {report.streams} streams checked, {report.evicted} declared as evicted")
        for finding in report.findings:
            data.print(escape(f"{finding.epoch}:{finding.lane}:{finding.seq}  {finding.what}"))
        if not report.findings:
            data.print("every chain holds")
    if report.findings:
        raise typer.Exit(FOUND)


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


def explanation_tree(found: Explanation, asked: str) -> Tree:
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
    what = " · ".join(escape(part) for part in _facts(record))
    return f"{mark}[cyan]{record.kind}[/] {what}\n[dim]{_time(record.at)}  {record.id}[/]"


def _facts(record: Record) -> list[str]:
    """What a person wants to know of one record, in a few words each."""
    body = record.body
    if record.kind == "observation":
        return [record.subject or record.agent, _shorten({k: v for k, v in body.items() if not k.startswith("_")})]
    if record.kind == "prediction":
        return [f"{record.label} {record.score:.3f}", f"model {body.get('version')!s}", _digest(body.get("model"))]
    if record.kind == "decision":
        policy = body.get("policy") or {}
        tried = ", ".join(
            f"{c['rule']}={'true' if c['value'] else c.get('error') or 'false'}" for c in body["conditions"]
        )
        why = f"abstained: {body['abstained']}" if "abstained" in body else f"rule {record.label}"
        return [why, f"policy {policy.get('name')} {policy.get('version')} {_digest(policy.get('digest'))}", tried]
    if record.kind == "action":
        return [f"{record.label} {body.get('status')}", _shorten({k: v for k, v in body.items() if k != "status"})]
    return [record.label or "", _shorten(body)]


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


def _time(at_us: int) -> str:
    return datetime.fromtimestamp(at_us / 1e6, UTC).strftime("%Y-%m-%d %H:%M:%S.%f")[:-3]


def _database(path: Path) -> Path:
    """The database a person means: a memory.db, or the one of a site file."""
    if path.suffix in (".yaml", ".yml"):
        return load_site(path).data / "memory.db"
    return path


def _print_records(records: list[Record], as_json: bool) -> None:
    if as_json:
        for record in records:
            emit_json(to_json(record))
        return
    for record in records:
        what = escape(" · ".join(filter(None, _facts(record))))
        when, who = f"[dim]{_time(record.at)}[/]", f"[cyan]{record.kind:<11}[/] [bold]{record.agent}[/]"
        data.print(f"{when}  {who}  {what}  [dim]{record.id}[/]")
