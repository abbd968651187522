"""One page on how good a model and its variants are: to be looked at. It needs no network and no script."""

import os
import platform
from collections.abc import Mapping, Sequence
from functools import cache
from importlib.metadata import version as installed
from importlib.resources import files
from string import Template

from edge_models.build.cases import Chosen, Model, case, disagreements, mistakes
from edge_models.build.drawings import text
from edge_models.build.figures import Change, changes, duration, heat, signed, size
from edge_models.build.samples import Samples
from edge_models.build.speed import cpu_model
from edge_models.build.variants import ReportVariant, alike, compared, metric_name
from edge_models.build.workdir import Gates
from edge_models.contract import Contract

__all__ = ["ReportVariant", "machine", "report"]

MOST_LABELS = 24
"""Labels in a figure; of more, those that are confused most."""

BESIDE = 8
"""Labels whose two figures fit side by side."""


def report(
    variants: Sequence[ReportVariant],
    samples: Samples,
    contract: Contract,
    *,
    gates: Gates | None = None,
    unmade: Mapping[str, str] | None = None,
    about: Mapping[str, str] | None = None,
) -> str:
    """The page: HTML, whole in itself.

    The first variant is what the others are compared with, and what their `Speed.ratio` is to; the one that was chosen,
    or else the second, is looked at closely. `unmade` says of schemes why they could not be applied. `about`
    is printed with the machine and the tools: what was measured, on what, by which command.
    """
    base = variants[0]
    others = [v for v in variants if v is not base]
    seen = next((v for v in others if v.chosen), others[0] if others else base)
    mood, verdict = _verdict(base, seen, others, contract, gates)
    if unmade and not others:
        mood, verdict = "attention", f"{base.name} is kept: no scheme could be applied."
    plot = [compared(variants, base, contract, gates, unmade or {})] if others or unmade else []
    sections = [*plot, _labels(base, seen, contract), _metrics(base, seen), _cases(base, seen, samples, contract)]
    about_model = [
        contract.task,
        f"{len(contract.labels)} labels" if contract.labels else "",
        f"{len(samples)} samples",
    ]
    printed = dict(about or {}) | machine()
    return _template().substitute(
        title=text(f"{contract.name} {contract.version}: {verdict}"),
        name=text(f"{contract.name} {contract.version}"),
        about=text(" · ".join(part for part in about_model if part)),
        mood=mood,
        verdict=text(verdict),
        facts="".join(_facts(base, seen, contract, len(samples))),
        sections="\n".join(section for section in sections if section),
        machine="".join(f"<div><dt>{text(key)}</dt><dd>{text(value)}</dd></div>" for key, value in printed.items()),
    )


def machine() -> dict[str, str]:
    """Where and with what a measurement is made, for a person."""
    return {
        "CPU": f"{cpu_model()}, {os.cpu_count()} logical cores, 1 used",
        "system": f"{platform.system()} {platform.release()}, {platform.machine()}",
        "Python": platform.python_version(),
        "ONNX Runtime": installed("onnxruntime"),
        "NumPy": installed("numpy"),
    }


@cache
def _template() -> Template:
    return Template(files("edge_models.build").joinpath("report.html").read_text(encoding="utf-8"))


def _verdict(
    base: ReportVariant,
    seen: ReportVariant,
    others: Sequence[ReportVariant],
    contract: Contract,
    gates: Gates | None,
) -> tuple[str, str]:
    """How the page opens: a mood, and a sentence."""
    if not others:
        return "plain", _alone(seen)
    refused = sum(v.refused is not None for v in others)
    if base.chosen:
        return "attention", f"{base.name} is kept: {refused} of {len(others)} variants fail the gates."
    words = []
    if seen.speed is not None:
        words.append(f"{1 / seen.speed.ratio:.2f} × as fast")
    share = seen.size_bytes / base.size_bytes
    words.append(f"{abs(1 - share) * 100:.0f} % {'smaller' if share < 1 else 'larger'}")
    if seen.measured.metrics:
        key, value = next(iter(seen.measured.metrics.items()))
        change = value - base.measured.metrics[key]
        words.append(f"{metric_name(key)} {'unchanged' if abs(change) < 5e-5 else signed(change)}")
    else:
        same, whole = alike(contract, base, seen), contract.task in ("classification", "reading")
        words.append(f"{_percent(same)} same answers" if whole else f"likeness {same:.4f}")
    taken = seen.chosen and gates is not None  # without gates nobody chose between these two
    opening = f"{seen.name} takes the place of {base.name}" if taken else f"{seen.name} against {base.name}"
    mood = "ok" if taken else "attention" if seen.refused else "plain"
    return mood, f"{opening}: {', '.join(words)}."


def _alone(seen: ReportVariant) -> str:
    """The sentence on a model that is compared with no other."""
    if not seen.measured.metrics:
        return "What it answers, and what it costs."
    key, value = next(iter(seen.measured.metrics.items()))
    words = f"{metric_name(key).capitalize()} {value:.4f}"
    measure, called = ("f1", "F1") if key == "accuracy" else ("exact", "exact")
    told = {name: each[measure] for name, each in (seen.measured.per_class or {}).items()}
    worst = min(told, key=lambda name: told[name], default=None)
    return (
        f"{words}." if worst is None or told[worst] == 1 else f"{words}. Worst is {worst}: {called} {told[worst]:.3f}."
    )


def _facts(base: ReportVariant, seen: ReportVariant, contract: Contract, samples: int) -> list[str]:
    """The few large numbers: of what is taken, beside those of the other."""
    alone = base is seen
    kept, other = (base, seen) if base.chosen else (seen, base)
    cards = []
    for key, value in list(kept.measured.metrics.items())[:1]:
        beside = f"{other.name} {other.measured.metrics[key]:.4f}"
        cards.append(_card(metric_name(key).capitalize(), f"{value:.4f}", f"on {samples} samples" if alone else beside))
    if not alone:
        same = alike(contract, base, seen)
        if contract.task in ("classification", "reading"):
            cards.append(_card("Same answers", _percent(same), f"{round(same * samples)} of {samples} samples"))
        else:
            cards.append(_card("Likeness", f"{same:.4f}", "mean cosine of outputs"))
    if kept.speed is not None:
        under = f"99 % within {duration(kept.speed.p99_us)}"
        if not alone and other.speed is not None:
            under = f"{other.name} {duration(other.speed.p50_us)}"
        cards.append(_card("Time of a sample", duration(kept.speed.p50_us), under))
    cards.append(
        _card("Size", size(kept.size_bytes), "the graph" if alone else f"{other.name} {size(other.size_bytes)}")
    )
    if kept.peak_rss_mb is not None:
        beside = "of a Python process"
        if not alone and other.peak_rss_mb is not None:
            beside = f"{other.name} {size(other.peak_rss_mb * 1e6)}"
        cards.append(_card("Memory", size(kept.peak_rss_mb * 1e6), beside))
    return cards


def _labels(base: ReportVariant, seen: ReportVariant, contract: Contract) -> str:
    """The confusion matrix, and each label's or field's change."""
    by_name, table = seen.measured.per_class, seen.measured.confusion
    if by_name is None:
        return ""
    alone = base is seen
    measure = "exact" if contract.task == "reading" else "f1"
    was = base.measured.per_class or {}
    rows = [
        Change(
            name,
            None if alone else was.get(name, {}).get(measure),
            each[measure],
            f"{each['samples']:.0f} samples",
        )
        for name, each in by_name.items()
    ]
    rows.sort(key=lambda row: (row.after - row.before if row.before is not None else 0.0, row.after))
    cut = f" The {MOST_LABELS} that lost most of {len(rows)}." if len(rows) > MOST_LABELS else ""
    what = "Field" if measure == "exact" else "Label"
    unit = "share read exactly" if measure == "exact" else "F1"
    key = "" if alone else _change_key(base, seen)
    groups = {"over all": _whole(base, seen), f"{unit} of each {what.lower()}": rows[:MOST_LABELS]}
    right = f'<div class="card"><h3>{_compared(base, seen)}</h3>{changes(groups)}{key}</div>'
    intro = f"{unit[0].upper()}{unit[1:]}, {'lowest first' if alone else 'most lost first'}.{cut}"
    if table is None:
        return f'<h2>{what}s</h2><p class="soft intro">{intro}</p><div class="pair">{right}</div>'
    shown = _most_confused(table)
    names = [contract.labels[i] for i in shown]
    before = None if alone else base.measured.confusion
    figure = heat(_part(table, shown), names, None if before is None else _part(before, shown))
    changed = "" if alone else f" Small numbers: change against {text(base.name)}."
    left = (
        f'<div class="card"><h3>Confusion of {text(seen.name)}</h3>{figure}<p class="key">'
        f'<span><i class="square"></i>right</span><span><i class="square wrong"></i>wrong</span>'
        f"<span>Shade: share of the row.{changed}</span></p></div>"
    )
    pair = f'<div class="pair{" even" if len(shown) <= BESIDE else ""}">{left}{right}</div>'
    return f'<h2>{what}s</h2><p class="soft intro">{intro}</p>{pair}'


def _metrics(base: ReportVariant, seen: ReportVariant) -> str:
    """The measures of a task that has no labels, before and after."""
    if seen.measured.per_class is not None or not seen.measured.metrics:
        return ""
    key = "" if base is seen else _change_key(base, seen)
    figure = changes({"over all": _whole(base, seen)})
    return f'<h2>Quality</h2><div class="card below"><h3>{_compared(base, seen)}</h3>{figure}{key}</div>'


def _whole(base: ReportVariant, seen: ReportVariant) -> list[Change]:
    was = {} if base is seen else base.measured.metrics
    return [Change(metric_name(key), was.get(key), value) for key, value in seen.measured.metrics.items()]


def _compared(base: ReportVariant, seen: ReportVariant) -> str:
    return f"Quality of {text(seen.name)}" + ("" if base is seen else f" against {text(base.name)}")


def _change_key(base: ReportVariant, seen: ReportVariant) -> str:
    return (
        f'<p class="key"><span><i class="was"></i>{text(base.name)}</span>'
        f"<span><i></i>{text(seen.name)}, the same</span>"
        '<span><i class="better"></i>better</span><span><i class="worse"></i>worse</span></p>'
    )


def _cases(base: ReportVariant, seen: ReportVariant, samples: Samples, contract: Contract) -> str:
    models = [Model(v.name, v.measured.answers) for v in ((seen,) if base is seen else (base, seen))]
    chosen: Chosen = mistakes(contract, models[0], samples) if base is seen else disagreements(contract, *models)
    if not chosen.remark:
        return ""
    cards = "".join(case(contract, samples, models, row) for row in chosen.rows)
    return f'<h2>{chosen.heading}</h2><p class="soft intro">{text(chosen.remark)}</p><div class="cases">{cards}</div>'


def _most_confused(table: list[list[int]]) -> list[int]:
    """Which labels to show, in the contract's order."""
    if len(table) <= MOST_LABELS:
        return list(range(len(table)))
    wrong = [sum(row) + sum(other[i] for other in table) - 2 * row[i] for i, row in enumerate(table)]
    return sorted(sorted(range(len(table)), key=lambda i: (-wrong[i], i))[:MOST_LABELS])


def _part(table: list[list[int]], which: Sequence[int]) -> list[list[int]]:
    return [[table[row][column] for column in which] for row in which]


def _card(title: str, big: str, under: str) -> str:
    return f'<div class="card"><h3>{text(title)}</h3><p class="big">{big}</p><p class="soft">{text(under)}</p></div>'


def _percent(share: float) -> str:
    return f"{share * 100:.1f} %"
