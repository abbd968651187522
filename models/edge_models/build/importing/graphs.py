"""Changing ONNX graphs in place: names, outputs, what is appended, and the one byte form of a graph."""

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from onnx import TensorProto, helper

from edge_models.errors import ConfigError
from edge_models.tensors import IDENTIFIER

PRODUCER = "edge-agent-kit"


def subgraphs(graph: Any) -> Iterator[Any]:
    """This graph and all in its nodes."""
    yield graph
    for node in graph.node:
        for attribute in node.attribute:
            for inner in (attribute.g, *attribute.graphs):
                if inner.node or inner.output:
                    yield from subgraphs(inner)


def names_in(model: Any) -> set[str]:
    """All values' names."""
    found: set[str] = set()
    for graph in subgraphs(model.graph):
        found.update(value.name for value in (*graph.input, *graph.output, *graph.initializer))
        for node in graph.node:
            found.update((*node.input, *node.output))
    return found


def opset_of(model: Any, domain: str = "") -> int:
    """The opset of a domain; 0 where the model imports none."""
    default = ("", "ai.onnx")  # two names of one domain
    same = default if domain in default else (domain,)
    return next((int(entry.version) for entry in model.opset_import if entry.domain in same), 0)


def set_opset(model: Any, opset: int, domain: str = "") -> None:
    """Have the model import this opset of a domain, and no other of it."""
    others = [entry for entry in model.opset_import if entry.domain != domain]
    _replace(model.opset_import, [*others, helper.make_opsetid(domain, opset)])


def rename(model: Any, names: Mapping[str, str]) -> None:
    """Old name → new name, wherever the values are used."""
    for graph in subgraphs(model.graph):
        for node in graph.node:
            node.input[:] = [names.get(name, name) for name in node.input]
            node.output[:] = [names.get(name, name) for name in node.output]
        for value in (*graph.input, *graph.output, *graph.value_info, *graph.initializer):
            value.name = names.get(value.name, value.name)
        for sparse in graph.sparse_initializer:
            sparse.values.name = names.get(sparse.values.name, sparse.values.name)
        for annotation in graph.quantization_annotation:
            annotation.tensor_name = names.get(annotation.tensor_name, annotation.tensor_name)


def to_identifiers(model: Any) -> None:
    """Give inputs and outputs names that a contract may hold, where they have others."""
    taken, names = names_in(model), {}
    for value in (*model.graph.input, *model.graph.output):
        if value.name not in names and not IDENTIFIER.fullmatch(value.name):
            names[value.name] = identifier(value.name, taken)
            taken.add(names[value.name])
    rename(model, names)


def identifier(text: str, taken: set[str] | frozenset[str] = frozenset()) -> str:
    """The nearest identifier that is not taken."""
    plain = re.sub(r"[^A-Za-z0-9_.-]", "_", text)[:60]
    base = plain if re.match(r"[A-Za-z_]", plain) else f"_{plain}"
    found, count = base, 2
    while found in taken:
        found, count = f"{base}_{count}", count + 1
    return found


def constants_are_no_inputs(model: Any) -> None:
    """Weights that a caller might replace become constants: old exporters list them as inputs too."""
    constants = {tensor.name for tensor in model.graph.initializer}
    _keep(model.graph.input, lambda value: value.name not in constants)


def keep_outputs(model: Any, names: Sequence[str]) -> None:
    """Keep these outputs, in this order, and of the graph what leads to them. Raises `ConfigError`."""
    outputs = {value.name: value for value in model.graph.output}
    for name in names:
        if name not in outputs:
            raise ConfigError(f"--output {name}: the graph gives {', '.join(outputs)}")
    kept = [helper.make_empty_tensor_value_info("") for _ in names]
    for value, name in zip(kept, names, strict=True):
        value.CopyFrom(outputs[name])
    del model.graph.output[:]
    model.graph.output.extend(kept)
    prune(model)


def prune(model: Any) -> None:
    """Drop the nodes, weights and inputs that no output needs."""
    needed = {value.name for value in model.graph.output}
    useful = []
    for node in reversed(model.graph.node):
        if needed & set(node.output):
            useful.append(node)
            needed.update(node.input)
            for attribute in node.attribute:
                for inner in (attribute.g, *attribute.graphs):
                    # What a subgraph reads of its surroundings; names of its own do no harm here.
                    needed.update(name for graph in subgraphs(inner) for each in graph.node for name in each.input)
                    needed.update(value.name for graph in subgraphs(inner) for value in graph.output)
    kept = [type(node).FromString(node.SerializeToString()) for node in reversed(useful)]
    del model.graph.node[:]
    model.graph.node.extend(kept)
    _keep(model.graph.initializer, lambda tensor: tensor.name in needed)
    _keep(model.graph.input, lambda value: value.name in needed)


def replace_output(model: Any, old: str, new: str, nodes: Sequence[Any], axes: Sequence[int | str]) -> None:
    """Append `nodes`, whose last makes `new` (float32, of these axes) of the output `old`, and give it in its place."""
    model.graph.node.extend(nodes)
    for value in model.graph.output:
        if value.name == old:
            value.CopyFrom(helper.make_tensor_value_info(new, TensorProto.FLOAT, list(axes)))


def canonical(model: Any) -> bytes:
    """The bytes of a model, the same for the same model: no prose, no traces of where it was made, weights by name."""
    model.producer_name, model.producer_version, model.domain, model.doc_string = PRODUCER, "", "", ""
    model.model_version, model.graph.name = 0, "graph"
    del model.metadata_props[:]
    del model.training_info[:]
    opsets = sorted(model.opset_import, key=lambda entry: str(entry.domain))
    _replace(model.opset_import, opsets)
    for graph in subgraphs(model.graph):
        del graph.value_info[:]
        _replace(graph.initializer, sorted(graph.initializer, key=lambda tensor: str(tensor.name)))
        _plain(graph)
        for part in (*graph.input, *graph.output, *graph.initializer, *graph.node):
            _plain(part)
        for node in graph.node:
            for attribute in node.attribute:
                attribute.doc_string = ""
                if attribute.HasField("t"):
                    _plain(attribute.t)
    data: bytes = model.SerializeToString(deterministic=True)
    return data


def _plain(part: Any) -> None:
    part.doc_string = ""
    del part.metadata_props[:]


def _replace(field: Any, values: Sequence[Any]) -> None:
    kept = [type(value).FromString(value.SerializeToString()) for value in values]
    del field[:]
    field.extend(kept)


def _keep(field: Any, wanted: Any) -> None:
    _replace(field, [value for value in field if wanted(value)])
