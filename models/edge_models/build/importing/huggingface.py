"""A Hugging Face folder: exported by optimum, with its tokenizer as a step and its task's end in the graph."""

import json
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from edge_models.build.importing.checks import check_files
from edge_models.build.importing.found import Found, digest_of_files
from edge_models.build.importing.onnx_file import from_onnx
from edge_models.build.importing.picture_input import picture_input
from edge_models.build.importing.quiet import quietly
from edge_models.build.importing.sentence import Pooling, pool, sentence_parts
from edge_models.build.importing.tokens import read_tokenizer, tokenize_step
from edge_models.build.importing.wanted import Wanted
from edge_models.build.recipe import Progress, needs_extra
from edge_models.digests import digest_of
from edge_models.errors import ConfigError, RejectedError

TOOLS = ("huggingface-hub", "optimum", "optimum-onnx", "tokenizers", "torch", "transformers")

WEIGHTS = ("*.safetensors", "*.bin")

_TASKS: Mapping[str, tuple[str, str | None]] = {
    "ForSequenceClassification": ("text-classification", "classification"),
    "ForImageClassification": ("image-classification", "classification"),
    "ForTokenClassification": ("token-classification", None),
    "ForQuestionAnswering": ("question-answering", None),
}
"""End of an architecture's name → optimum's task and the contract's."""

_WRITERS = ("ForCausalLM", "ForConditionalGeneration", "LMHeadModel", "ForSpeechSeq2Seq", "ForVision2Seq")


def from_folder(
    folder: Path, wanted: Wanted, progress: Progress, *, source: str = "", more: Mapping[str, str] | None = None
) -> Found:
    """The model in a Hugging Face or sentence-transformers folder.

    Raises `ConfigError` where a file is missing or the task is not the model's, `RejectedError` for a model that no
    bundle can hold.
    """
    parts = sentence_parts(folder)
    root, pooling = parts if parts is not None else (folder, None)
    config = read_json(root / "config.json")
    architecture = str((config.get("architectures") or [""])[0])
    export_task, task = _task(architecture, wanted, pooling)
    if task == "classification" and wanted.task != "tensors":
        _check_classes(config)
    if task == "embedding" and pooling is None:
        pooling = Pooling("mean", normalized=True)
    check_files(root, WEIGHTS[:1])
    progress(f"exporting {architecture or 'the model'}")
    with tempfile.TemporaryDirectory() as made:
        _export(root, Path(made), export_task, wanted.opset)
        graphs = sorted(Path(made).glob("*.onnx"))
        if len(graphs) != 1:
            raise RejectedError(f"{folder.name} becomes {len(graphs)} graphs, where a bundle holds one")
        model = from_onnx(graphs[0]).model
    given = None if wanted.tokenizer is None else read_tokenizer(wanted.tokenizer)
    step, files = tokenize_step(root, config, [value.name for value in model.graph.input], given)
    image = picture_input(model, root, config)
    if pooling is not None and wanted.task in (None, "embedding"):
        pool(model, pooling)
    labels = _labels(config) if task == "classification" and wanted.task != "tensors" else ()
    return Found(
        "sentence-transformers" if parts else "hugging-face",
        source or folder.resolve().name,
        digest_of_files(_files(folder), folder),
        model,
        TOOLS,
        task=task,
        labels=labels,
        steps=step,
        files=files,
        image=image,
        licence=_licence(folder),
        more=dict(more or {}) | ({} if given is None else {"tokenizer_sha256": digest_of(given)}),
    )


def read_json(path: Path) -> dict[str, Any]:
    """The object in a JSON file. Raises `ConfigError`."""
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror}") from None
    except ValueError as error:
        raise ConfigError(f"{path}: no JSON: {error}") from None
    if not isinstance(value, dict):
        raise ConfigError(f"{path}: not an object")
    return value


def _task(architecture: str, wanted: Wanted, pooling: Pooling | None) -> tuple[str, str | None]:
    """Optimum's task and the contract's."""
    if architecture.endswith(_WRITERS):
        raise RejectedError(f"{architecture} writes text word by word, which a bundle's one graph can't")
    export_task, task = next((found for end, found in _TASKS.items() if architecture.endswith(end)), (None, None))
    if wanted.task == "classification" and task != "classification":
        raise ConfigError(f"{architecture or 'the model'} has no classes: leave out the task, or ask for embedding")
    if wanted.task == "embedding" and task == "classification":
        raise ConfigError(f"{architecture} gives scores, no vectors: import it for classification")
    if export_task is None:
        return "feature-extraction", "embedding" if pooling is not None or wanted.task == "embedding" else None
    return export_task, task


def _check_classes(config: Mapping[str, Any]) -> None:
    if config.get("problem_type") == "multi_label_classification":
        raise RejectedError(
            "a model of several labels at once: a classification has one label a sample; with `--task tensors` it "
            "gives its logits"
        )
    if config.get("problem_type") == "regression" or len(_labels(config)) < 2:
        raise RejectedError("a model of one number, no classes: with `--task tensors` it gives that number")


def _labels(config: Mapping[str, Any]) -> tuple[str, ...]:
    """As the config has them; two where it has none, which is transformers' default."""
    named = config.get("id2label")
    if not isinstance(named, dict):
        return tuple(f"LABEL_{index}" for index in range(int(config.get("num_labels", 2))))
    try:
        return tuple(str(named[key]) for key in sorted(named, key=int))
    except ValueError:
        raise ConfigError("config.json: the keys of id2label are not numbers") from None


def _export(folder: Path, out: Path, task: str, opset: int) -> None:
    if not any(file for pattern in WEIGHTS for file in folder.glob(pattern)):
        raise ConfigError(f"{folder.name}: no weights: there is no {' or '.join(WEIGHTS)} file in it")
    with needs_extra():
        from optimum.exporters.onnx import main_export  # noqa: PLC0415 - takes seconds
    with quietly():
        try:
            main_export(
                str(folder),
                out,
                task=task,
                opset=opset,
                library_name="transformers",
                framework="pt",
                do_validation=False,
                local_files_only=True,
                trust_remote_code=False,
            )
        except Exception as error:  # noqa: BLE001 - transformers, optimum and torch raise whatever they meet
            said = " ".join(str(error).split())[:300] or type(error).__name__
            raise RejectedError(f"{folder.name}: optimum can't export it: {said}") from None


def _files(folder: Path) -> list[Path]:
    """All files of a folder but hidden ones: what its digest covers."""
    inside = (path for path in folder.rglob("*") if path.is_file())
    return [path for path in inside if not any(part.startswith(".") for part in path.relative_to(folder).parts)]


def _licence(folder: Path) -> str:
    """As the model's card says in its head."""
    try:
        text = (folder / "README.md").read_text(encoding="utf-8")
        head = yaml.safe_load(text.split("---")[1]) if text.startswith("---") else {}
    except (OSError, UnicodeDecodeError, yaml.YAMLError, IndexError):
        return ""
    said = head.get("license", "") if isinstance(head, dict) else ""
    return said if isinstance(said, str) else ""
