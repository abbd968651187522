"""The model card: where a model comes from, how good it is before and after quantization, what it is not for.

Nothing in it changes from one build to the next on the same machine: no dates, no paths.
"""

import platform
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from edge_models.build.measure import Measured, agreement
from edge_models.build.workdir import FLOAT, Sheet
from edge_models.bundle import Golden
from edge_models.contract import Contract
from edge_models.digests import digest_of

TOOLS = ("numpy", "onnx", "onnxruntime", "optimum", "optimum-onnx", "torch")
"""Whose versions a rebuild needs to be byte-equal."""

QUANTIZATION: Mapping[str, str] = {
    "none": "none",
    "static": "static QDQ, int8 weights per channel in a reduced range, uint8 activations by min-max calibration",
    "dynamic": "dynamic, int8 weights per channel in a reduced range, activations as they come",
    "int4": "4-bit weights in blocks of 32 of large matrices (MatMulNBits), int8 lookup tables",
}
"""What a scheme does, for the card. The reduced range costs nothing measurable and keeps AVX2 CPUs, whose int16
accumulators overflow at full range, on the same answers as those with VNNI. Source: ONNX Runtime's quantization guide,
and measured."""


def make_card(
    sheet: Sheet,
    scheme: str,
    graphs: Mapping[str, bytes],
    measured: Mapping[str, Measured],
    golden: Golden,
    latency: Mapping[str, Any],
) -> dict[str, Any]:
    """The card of one version. `graphs` are float and, where it was quantized, what ships; `measured` alike, on the
    held-out samples, empty where there were none."""
    contract, about, packed = sheet.contract, sheet.about, list(graphs)[-1]
    metrics: dict[str, Any] = {
        name: {metric: round(value, 4) for metric, value in each.metrics.items()} for name, each in measured.items()
    }
    if packed != FLOAT and measured:
        alike = agreement(contract, measured[packed].answers, measured[FLOAT].answers)
        metrics["agreement"] = round(alike, 4)
    if measured and measured[packed].confusion is not None:
        metrics["confusion"] = measured[packed].confusion
    card = {
        "name": contract.name,
        "version": contract.version,
        "summary": about.summary,
        "about": about.about,
        "task": contract.task,
        "data": dict(about.data),
        "metrics": metrics,
        "golden": _golden(contract, golden),
        "size": {f"{name}_bytes": len(graph) for name, graph in graphs.items()},
        "precision": packed,
        "quantization": QUANTIZATION[scheme],
        "latency": dict(latency),
        "lineage": {
            "graph": digest_of(graphs[packed]),
            "float_graph": digest_of(graphs[FLOAT]),
            "tools": {"python": platform.python_version()} | _tools(),
            **about.lineage,
        },
        "limits": list(about.limits),
    }
    return card | ({"licence": about.licence} if about.licence else {})


def _tools() -> dict[str, str]:
    found = {}
    for name in TOOLS:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def _golden(contract: Contract, golden: Golden) -> dict[str, Any]:
    """How many there are, and how many of them this model is right about, where that is known."""
    told: dict[str, Any] = {"samples": len(golden.truth)}
    if all(truth is None for truth in golden.truth):
        return told | {"inputs": "made up by chance: they prove that a CPU computes alike, nothing else"}
    if contract.task == "classification":
        answers: list[Any] = [contract.labels[top] for top in golden.outputs[contract.scores].argmax(axis=-1)]
    elif golden.answers is not None:
        answers = list(golden.answers)
    else:
        return told
    right = sum(answer == truth for answer, truth in zip(answers, golden.truth, strict=True))
    return told | {"accuracy": round(right / len(answers), 4)}
