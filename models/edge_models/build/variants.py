"""The part of a report that sets a model's variants against each other: a figure, the gates, a table."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from edge_models.build.drawings import text
from edge_models.build.figures import Bubble, bar, duration, plane, signed, size
from edge_models.build.measure import Measured, agreement
from edge_models.build.speed import Speed
from edge_models.build.workdir import Gates
from edge_models.contract import Contract

GATES_BESIDE = 3
"""Variants whose gates fit beside the figure."""

NAMES: Mapping[str, str] = {
    "accuracy": "accuracy",
    "macro_f1": "macro-F1",
    "auc": "AUC",
    "recall_at_1": "recall at 1",
    "recall_at_5": "recall at 5",
    "recall_at_10": "recall at 10",
    "exact": "exact fields",
    "exact_samples": "exact samples",
}
"""What a metric is called in print."""


@dataclass(frozen=True, slots=True)
class ReportVariant:
    """One graph, and what was measured of it."""

    name: str
    measured: Measured
    size_bytes: int
    """Of the graph."""
    scheme: str = ""
    """In words, where the name does not say it."""
    speed: Speed | None = None
    peak_rss_mb: float | None = None
    refused: str | None = None
    """Why it was not taken."""
    chosen: bool = False
    """It is what the bundle has."""


def compared(
    variants: Sequence[ReportVariant],
    base: ReportVariant,
    contract: Contract,
    gates: Gates | None,
    unmade: Mapping[str, str],
) -> str:
    """The section: a figure where all were timed, the gates where there are some, and a table with all the numbers."""
    table = _table(variants, base, contract, unmade)
    if len(variants) == 1 or any(v.speed is None for v in variants):
        return f'<h2>Variants</h2><div class="card scroll">{table}</div>'
    key = next(iter(base.measured.metrics), None)
    quality = f"{alike_name(contract)}, with {base.name}" if key is None else metric_name(key)
    bubbles = [
        Bubble(
            v.name,
            v.speed.p50_us if v.speed else 0.0,
            alike(contract, base, v) if key is None else v.measured.metrics[key],
            v.size_bytes,
            style_of(v, base),
        )
        for v in variants
    ]
    slowest = least = None
    if gates is not None and gates.min_speedup > 0 and base.speed is not None:
        slowest = base.speed.p50_us / gates.min_speedup
        least = gates.min_agreement if key is None else base.measured.metrics[key] - gates.max_metric_drop
    figure = plane(bubbles, quality, slowest, least)
    left = f'<div class="card scroll">{figure}{_plane_key(variants, base, gates)}</div>'
    pair = left
    if gates is not None:
        wide = " wide" if len(variants) <= GATES_BESIDE else ""
        pair = f'<div class="pair{wide}">{left}{_gates(gates, variants, base, contract)}</div>'
    intro = "Further left is faster, higher is better, and a smaller disc is a smaller graph."
    if all(v.peak_rss_mb is not None for v in variants):
        intro += " Memory: the most of a Python process that only runs the graph."
    return f'<h2>Variants</h2><p class="soft intro">{intro}</p>{pair}<div class="card scroll below">{table}</div>'


def _plane_key(variants: Sequence[ReportVariant], base: ReportVariant, gates: Gates | None) -> str:
    styles = {style_of(v, base) for v in variants}
    words = {"base": base.name, "kept": "taken", "plain": "compared", "refused": "refused"}
    items = [f'<span><i class="{style}"></i>{text(word)}</span>' for style, word in words.items() if style in styles]
    items += ['<span><i class="zone"></i>quality and time within the gates</span>'] if gates else []
    return f'<p class="key">{"".join(items)}</p>'


def _gates(gates: Gates, variants: Sequence[ReportVariant], base: ReportVariant, contract: Contract) -> str:
    """Each gate, and what each variant has there."""
    key = next(iter(base.measured.metrics), None)
    others = [v for v in variants if v is not base]
    rows = []
    if key is not None:
        # Rounded, as 0.97 - 0.96 is a little more than 0.01 to a computer.
        drops = [round(base.measured.metrics[key] - v.measured.metrics[key], 9) for v in others]
        marks = [(signed(-drop), drop <= gates.max_metric_drop) for drop in drops]
        rows.append((metric_name(key), f"{-gates.max_metric_drop:g} or better".replace("-", "−"), marks))
    same = [alike(contract, base, v) for v in others]
    marks = [(f"{share:.4f}", share >= gates.min_agreement) for share in same]
    rows.append((alike_name(contract), f"{gates.min_agreement:g} or more", marks))
    ups = [1 / v.speed.ratio for v in others if v.speed is not None]
    rows.append(
        ("speed-up", f"{gates.min_speedup:g} × or more", [(f"{up:.2f} ×", up >= gates.min_speedup) for up in ups])
    )
    if gates.max_size_bytes is not None:
        sizes = [v.size_bytes for v in others]
        marks = [(size(each), each <= gates.max_size_bytes) for each in sizes]
        rows.append(("size", f"{size(gates.max_size_bytes)} or less", marks))
    head = "".join(f'<th class="n">{text(v.name, 16)}</th>' for v in others)
    body = "".join(
        f'<tr><td>{text(name)}<div class="soft">{text(limit)}</div></td>'
        + "".join(f'<td class="n">{text(value)}<div>{_mark(passed)}</div></td>' for value, passed in values)
        + "</tr>"
        for name, limit, values in rows
    )
    return (
        f'<div class="card scroll"><h3>Gates</h3><table><thead><tr><th></th>{head}</tr></thead><tbody>{body}</tbody>'
        f'</table><p class="soft below">A variant that misses one is refused. Where all are, {text(base.name)} is kept.'
        "</p></div>"
    )


def _mark(passed: bool) -> str:
    return '<b class="ok">✓</b>' if passed else '<b class="down">✗</b>'


def _table(
    variants: Sequence[ReportVariant], base: ReportVariant, contract: Contract, unmade: Mapping[str, str]
) -> str:
    metrics = list(base.measured.metrics)
    timed = all(v.speed is not None for v in variants)
    weighed = all(v.peak_rss_mb is not None for v in variants)
    head = [
        "variant",
        *(metric_name(key) for key in metrics),
        alike_name(contract),
        *["time of a sample", "speed-up"] * timed,
    ]
    head += ["graph", *["memory"] * weighed]
    slowest, largest = max(v.speed.p50_us if v.speed else 0 for v in variants), max(v.size_bytes for v in variants)
    rows = []
    for v in variants:
        style = style_of(v, base)
        chip = '<span class="chip ok">taken</span>' if v.chosen else ""
        chip = '<span class="chip attention">refused</span>' if v.refused else chip
        under = f'<div class="soft">{text(v.scheme, 60)}</div>' if v.scheme not in ("", v.name) else ""
        cells = [f'<td><span class="name">{text(v.name)}</span> {chip}{under}</td>']
        cells += [f'<td class="n">{v.measured.metrics[key]:.4f}</td>' for key in metrics]
        cells.append(f'<td class="n">{"" if v is base else f"{alike(contract, base, v):.4f}"}</td>')
        if timed and v.speed is not None:
            drawn = bar(v.speed.p50_us / slowest, style)
            within = f'<div class="soft">99 % within {duration(v.speed.p99_us)}</div>'
            cells.append(f'<td class="n with-bar">{duration(v.speed.p50_us)}{drawn}{within}</td>')
            cells.append(f'<td class="n">{"" if v is base else f"{1 / v.speed.ratio:.2f} ×"}</td>')
        cells.append(f'<td class="n with-bar">{size(v.size_bytes)}{bar(v.size_bytes / largest, style)}</td>')
        cells += [f'<td class="n">{size((v.peak_rss_mb or 0) * 1e6)}</td>'] * weighed
        kind = "chosen" if v.chosen else "has-why" if v.refused else ""
        rows.append(f'<tr class="{kind}">{"".join(cells)}</tr>')
        if v.refused:
            rows.append(f'<tr><td class="why" colspan="{len(head)}"><div>{text(v.refused)}</div></td></tr>')
    for name, reason in unmade.items():
        chip = '<span class="chip attention">not made</span>'
        empty = f'<td colspan="{len(head) - 1}"></td>'
        rows.append(f'<tr class="has-why"><td><span class="name">{text(name)}</span> {chip}</td>{empty}</tr>')
        rows.append(f'<tr><td class="why" colspan="{len(head)}"><div>{text(reason)}</div></td></tr>')
    named = "".join(f"<th{' class=n' if index else ''}>{text(name)}</th>" for index, name in enumerate(head))
    return f"<table><thead><tr>{named}</tr></thead><tbody>{''.join(rows)}</tbody></table>"


def alike(contract: Contract, base: ReportVariant, v: ReportVariant) -> float:
    """The agreement of a variant with the one it is compared with."""
    return agreement(contract, v.measured.answers, base.measured.answers)


def alike_name(contract: Contract) -> str:
    """What an agreement is called."""
    return "same answers" if contract.task in ("classification", "reading") else "likeness"


def style_of(v: ReportVariant, base: ReportVariant) -> str:
    """The page's class of a variant: its colour."""
    return "base" if v is base else "refused" if v.refused else "kept" if v.chosen else "plain"


def metric_name(key: str) -> str:
    """For a person."""
    return NAMES.get(key, key.replace("_", " "))
