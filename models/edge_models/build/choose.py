"""Which quantization pays: each that suits the graph is made, measured beside float, and held to the gates."""

from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from typing import Any

import numpy as np

from edge_models.build.measure import Measured, agreement, measure
from edge_models.build.recipe import Progress
from edge_models.build.samples import Samples
from edge_models.build.schemes import apply, check_samples
from edge_models.build.speed import Speed, one_run, speeds
from edge_models.build.suits import suits
from edge_models.build.workdir import FLOAT, Gates
from edge_models.contract import Contract
from edge_models.errors import RejectedError

NONE, AUTO = "none", "auto"
"""What `--scheme` takes beside the schemes: leave it in float; what suits the graph."""

AS_FAST = 1.05
"""Two variants are equally fast while the times differ by no more than this: the smaller one is better then.
Source: what the same pair measured twice differed by on a shared machine."""


@dataclass(frozen=True, slots=True)
class Tried:
    """A variant, and what came of it."""

    name: str
    scheme: str
    graph: bytes
    """Empty where the scheme could not be applied."""
    size_bytes: int
    metrics: Mapping[str, float]
    """On the evaluation samples; the first is the task's main one. Empty where no truth is known."""
    agreement: float | None
    """With float on the same samples; None where it could not run."""
    speed_ratio: float | None
    """Its time as a share of float's, one sample on one thread, in one run: below 1 it is faster. None as above."""
    refused: str | None = None
    """Why it is not taken, with the figures. None: it passed."""

    def facts(self) -> dict[str, Any]:
        """All but the graph, for its file and for programs."""
        return {each.name: getattr(self, each.name) for each in fields(self) if each.name != "graph"}


@dataclass(frozen=True, slots=True)
class Choice:
    """What was tried, float first, and what is taken."""

    variants: tuple[Tried, ...]
    chosen: str
    """Float's name where nothing else passed."""
    why: str
    """What these schemes were tried for."""
    times: Mapping[str, Speed] = field(default_factory=dict)
    """Of all that were made, in one run; empty where there is nothing to compare."""


def choose(
    contract: Contract,
    graph: bytes,
    files: Mapping[str, bytes],
    calibration: Samples | None,
    evaluation: Samples,
    gates: Gates,
    scheme: str = AUTO,
    progress: Progress = lambda _: None,
    *,
    vnni_only: bool = False,
) -> Choice:
    """Try one scheme, or with ``auto`` those that suit the graph, and take the best that holds the gates.

    The best is the fastest, and of equally fast ones the smallest. `calibration` sets ranges and is never measured on;
    `evaluation` is only measured on. Where float itself is larger than the gates allow, its `refused` says so.

    Raises `RejectedError` where samples are not what the model takes, or float can't run on them; `ConfigError` for a
    scheme that there is not.
    """
    if calibration is not None:
        check_samples(contract, calibration, "calibration")
    check_samples(contract, evaluation, "evaluation")
    schemes, why = _schemes(contract, graph, scheme)
    progress(f"measuring {FLOAT}")
    base = measure(contract, graph, files, evaluation)
    tried = [Tried(FLOAT, NONE, graph, len(graph), base.metrics, 1.0, 1.0)]
    for each in schemes:
        progress(f"trying {each}")
        tried.append(_tried(each, contract, graph, files, calibration, evaluation, base, vnni_only))
    progress("timing")
    made = {variant.name: variant.graph for variant in tried if variant.graph}
    sample = {name: np.asarray(array) for name, array in one_run(contract, evaluation.inputs).items()}
    timed = speeds(contract, made, files, sample) if len(made) > 1 else {}
    tried = [replace(v, speed_ratio=timed[v.name].ratio) if v.name in timed else v for v in tried]
    variants = tuple(replace(v, refused=v.refused or refusal(v, tried[0], gates)) for v in tried)
    return Choice(variants, _best(variants), why, timed)


def refusal(variant: Tried, base: Tried, gates: Gates) -> str | None:
    """Why these gates do not let the variant through, with the figures; None where they do."""
    reasons = [_too_large(variant, gates)]
    if variant.name != base.name:
        reasons += [_worse(variant, base, gates), _other_answers(variant, gates), _slow(variant, gates)]
    said = [reason for reason in reasons if reason]
    return "; ".join(said) or None


def _schemes(contract: Contract, graph: bytes, scheme: str) -> tuple[tuple[str, ...], str]:
    if scheme == NONE:
        return (), "it was to stay in float"
    if scheme != AUTO:
        return (scheme,), "it was asked for"
    found = suits(contract, graph)
    return found.schemes, found.why


def _tried(
    scheme: str,
    contract: Contract,
    graph: bytes,
    files: Mapping[str, bytes],
    calibration: Samples | None,
    evaluation: Samples,
    base: Measured,
    vnni_only: bool,
) -> Tried:
    try:
        made = apply(scheme, contract, graph, calibration, vnni_only=vnni_only)
        seen = measure(contract, made, files, evaluation)
    except RejectedError as error:
        return Tried(scheme, scheme, b"", 0, {}, None, None, refused=str(error))
    return Tried(scheme, scheme, made, len(made), seen.metrics, agreement(contract, seen.answers, base.answers), None)


def _best(variants: tuple[Tried, ...]) -> str:
    """The smallest of those that are as fast as the fastest."""
    passed = [(v, v.speed_ratio) for v in variants[1:] if v.refused is None and v.speed_ratio is not None]
    if not passed:
        return variants[0].name
    fastest = min(ratio for _, ratio in passed)
    return min((v.size_bytes, ratio, v.name) for v, ratio in passed if ratio <= fastest * AS_FAST)[-1]


def _too_large(variant: Tried, gates: Gates) -> str | None:
    if gates.max_size_bytes is None or variant.size_bytes <= gates.max_size_bytes:
        return None
    return f"{variant.size_bytes:,} bytes, {gates.max_size_bytes:,} are allowed"


def _worse(variant: Tried, base: Tried, gates: Gates) -> str | None:
    main = next(iter(base.metrics), None)
    if main is None:
        return None
    ours, floats = variant.metrics[main], base.metrics[main]
    # Rounded, as 0.97 - 0.96 is a little more than 0.01 to a computer.
    if round(floats - ours, 9) <= gates.max_metric_drop:
        return None
    return f"{main} {ours:.4g} where float has {floats:.4g}, {gates.max_metric_drop:g} less is allowed"


def _other_answers(variant: Tried, gates: Gates) -> str | None:
    # Written so that NaN, which compares false, is refused too.
    if variant.agreement is not None and variant.agreement >= gates.min_agreement:
        return None
    return f"agrees with float to {_percent(variant.agreement or 0.0)}, {_percent(gates.min_agreement)} is wanted"


def _slow(variant: Tried, gates: Gates) -> str | None:
    if variant.speed_ratio is None:
        return "it was not timed"
    times_faster = 1 / variant.speed_ratio
    if times_faster >= gates.min_speedup:
        return None
    is_ = f"{_percent(times_faster - 1)} faster" if times_faster >= 1 else f"{_percent(variant.speed_ratio - 1)} slower"
    if gates.min_speedup >= 1:
        return f"{is_} than float, {_percent(gates.min_speedup - 1)} faster is wanted"
    return f"{is_} than float, {_percent(1 / gates.min_speedup - 1)} slower is allowed"


def _percent(share: float) -> str:
    percent = share * 100
    return f"{percent:,.0f} %" if percent >= 1000 else f"{percent:.3g} %"  # NaN is said, not hidden
