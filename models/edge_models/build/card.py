"""The model card: where a model comes from, how good it is before and after quantization, what it is not for.

Nothing in it changes from one build to the next on the same machine: no dates, no paths.
"""

import platform
from collections import Counter
from importlib.metadata import version as installed
from typing import Any

import numpy as np

from edge_models.build.evaluate import predicted, quality
from edge_models.build.quantize import SCHEME
from edge_models.build.recipe import Data, Recipe, Split
from edge_models.bundle import Golden
from edge_models.digests import digest_of

TOOLS = ("numpy", "onnx", "onnxruntime", "optimum", "optimum-onnx", "torch")
"""Whose versions a rebuild needs to be byte-equal."""


def make_card(
    recipe: Recipe,
    version: str,
    data: Data,
    graphs: dict[str, bytes],
    golden: Golden,
    latency: dict[str, Any],
) -> dict[str, Any]:
    """The card of one version. `graphs` are ``float`` and ``int8``, both measured on the held-out split."""
    truth = data.held_out.labels
    labels = {kind: predicted(graph, data.held_out, recipe.scores) for kind, graph in graphs.items()}
    metrics: dict[str, Any] = {}
    for kind, seen in labels.items():
        measured = quality(seen, truth)
        metrics[kind] = {"accuracy": round(measured.accuracy, 4), "macro_f1": round(measured.macro_f1, 4)}
    metrics["agreement"] = round(float(np.mean(labels["float"] == labels["int8"])), 4)
    metrics["confusion"] = _confusion(labels["int8"], truth, len(recipe.labels))
    return {
        "name": recipe.name,
        "version": version,
        "summary": recipe.summary,
        "about": recipe.versions[version].about,
        "task": "classification",
        "data": {
            "name": recipe.source.name,
            "source": recipe.source.source,
            "licence": recipe.source.licence,
            "about": recipe.source.about,
            "split": recipe.source.split,
            "counts": {
                "train": _counts(recipe.versions[version].sees(data.train), recipe.labels),
                "calibration": _counts(data.calibration, recipe.labels),
                "held_out": _counts(data.held_out, recipe.labels),
            },
        },
        "metrics": metrics,
        "golden": {"samples": len(golden.truth), "accuracy": _golden_accuracy(recipe, golden)},
        "size": {f"{kind}_bytes": len(graph) for kind, graph in graphs.items()},
        "quantization": SCHEME,
        "latency": latency,
        "lineage": {
            "data": data.digest,
            "graph": digest_of(graphs["int8"]),
            "float_graph": digest_of(graphs["float"]),
            "tools": {"python": platform.python_version()} | {tool: installed(tool) for tool in TOOLS},
            "command": f"edge-agent model build {recipe.name} --version {version}",
        },
        "limits": list(recipe.limits),
    }


def _counts(split: Split, labels: tuple[str, ...]) -> dict[str, Any]:
    by_label = Counter(labels[index] for index in split.labels)
    return {"samples": len(split), "labels": {label: by_label[label] for label in labels}}


def _confusion(seen: Any, truth: Any, labels: int) -> list[list[int]]:
    """Rows are the true label, columns the int8 graph's."""
    table = np.zeros((labels, labels), dtype=int)
    np.add.at(table, (truth, seen), 1)
    return [[int(count) for count in row] for row in table]


def _golden_accuracy(recipe: Recipe, golden: Golden) -> float:
    seen = np.argmax(golden.outputs[recipe.scores], axis=-1)
    right = sum(recipe.labels[index] == true for index, true in zip(seen, golden.truth, strict=True))
    return round(float(right) / len(golden.truth), 4)
