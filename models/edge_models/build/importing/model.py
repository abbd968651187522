"""From a source of any kind to a sheet, a float graph and the files of its steps."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import onnx

from edge_models.build.importing.batching import with_batch
from edge_models.build.importing.checks import check_model
from edge_models.build.importing.found import Found
from edge_models.build.importing.graphs import canonical, constants_are_no_inputs, keep_outputs, to_identifiers
from edge_models.build.importing.shapes import input_specs, name_axes, output_specs
from edge_models.build.importing.sources import find
from edge_models.build.importing.tasks import decide
from edge_models.build.importing.tokens import read_tokenizer, with_tokenizer
from edge_models.build.importing.wanted import Wanted
from edge_models.build.recipe import Progress
from edge_models.build.workdir import About, Sheet
from edge_models.contract import Contract
from edge_models.errors import RejectedError
from edge_models.tensors import TensorSpec

_NOTHING: Mapping[str, Any] = {}


def import_model(
    source: str,
    *,
    name: str,
    version: str,
    task: str | None = None,
    labels: Sequence[str] | None = None,
    opset: int = 17,
    trust_pickle: bool = False,
    dims: Mapping[str, int | str] = _NOTHING,
    inputs: Sequence[TensorSpec] = (),
    outputs: Sequence[str] = (),
    threshold: float | None = None,
    tokenizer: Path | None = None,
    progress: Progress,
) -> tuple[Sheet, bytes, dict[str, bytes]]:
    """What `source` is as a sheet, a float graph, and the files that its steps need. The same source, the same bytes.

    `source`: a Hugging Face folder or a hub's id, an ``.onnx`` file, a pickled scikit-learn model, a TorchScript or
    ``torch.export`` file. `dims`, `inputs`, `outputs`, `threshold` and `tokenizer` say what the source leaves open
    (`Wanted`).

    Raises `ConfigError` for what the caller can put right, `RejectedError` for a model that no bundle can hold,
    `RetryableError` where a hub can't be reached; each one line.
    """
    wanted = Wanted(
        name,
        version,
        task,
        labels=tuple(labels or ()),
        opset=opset,
        trust_pickle=trust_pickle,
        dims=dict(dims),
        inputs=tuple(inputs),
        outputs=tuple(outputs),
        threshold=threshold,
        tokenizer=tokenizer,
    )
    wanted.check()
    found = find(source, wanted, progress)
    found, contract, graph = to_contract(found, wanted, progress)
    lineage = found.lineage(wanted.command(found.source))
    return Sheet(contract, About(licence=found.licence, lineage=lineage)), graph, dict(found.files)


def to_contract(found: Found, wanted: Wanted, progress: Progress) -> tuple[Found, Contract, bytes]:
    """What was found with the tokenizer that was given, the contract of its graph, and the graph's bytes with all in it
    that the contract promises. Raises as `import_model`."""
    model = found.model
    progress("checking the graph")
    if model.functions:
        model = onnx.inliner.inline_local_functions(model)
    constants_are_no_inputs(model)
    check_model(model)
    if wanted.outputs:
        keep_outputs(model, wanted.outputs)
    to_identifiers(model)
    name_axes(model, wanted.dims)
    if wanted.tokenizer is not None and not found.steps:
        found = with_tokenizer(found, model, read_tokenizer(wanted.tokenizer))
    progress("asking the graph")
    opened = with_batch(model)
    if opened is None:
        progress("it takes one sample a run: two at once are not answered as one by one")
    model = model if opened is None else opened
    specs = input_specs(model)
    given = output_specs(model, specs)
    labels = wanted.labels or found.labels
    role = decide(model, specs, given, opened is not None, wanted.task or found.task, labels, wanted.threshold)
    try:
        contract = Contract(
            wanted.name,
            wanted.version,
            role.task,
            (replace(specs[0], columns=found.columns, categories=found.categories), *specs[1:]),
            role.outputs,
            labels=role.labels,
            scores=role.scores,
            embedding=role.embedding,
            image=found.image if opened is not None else None,
            batched=opened is not None,
            steps=found.steps,
        )
    except ValueError as error:
        raise RejectedError(str(error)) from None
    graph = canonical(model)
    check_model(model)
    return found, contract, graph
