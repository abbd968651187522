"""Hugging Face folders → graphs with their tokenizer as a step. The models are small, random, and made here."""

import hashlib
import json
import os
import subprocess
import sys
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest

if any(find_spec(name) is None for name in ("onnx", "optimum", "transformers", "tokenizers", "torch")):
    pytest.skip("the extra `models` is not installed", allow_module_level=True)

import onnx
import torch
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
from transformers import (
    BertConfig,
    BertForMaskedLM,
    BertForSequenceClassification,
    BertModel,
    GPT2Config,
    GPT2LMHeadModel,
    ViTConfig,
    ViTForImageClassification,
    ViTImageProcessor,
)

from edge_models.build.importing import import_model
from edge_models.build.run import answers
from edge_models.build.workdir import Sheet, fill, new_workdir, open_workdir
from edge_models.contract import Step
from edge_models.errors import ConfigError, RejectedError
from edge_models.pictures import picture
from edge_models.steps import prepare

WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "the", "belt", "motor", "is", "hot", "cold", "slips"]

SMALL = {
    "vocab_size": len(WORDS),
    "hidden_size": 16,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "intermediate_size": 32,
    "max_position_embeddings": 24,
}

TEXTS = ("the belt slips", "the motor is hot", "cold")


def words(folder: Path, vocabulary: list[str] = WORDS) -> Path:
    """Put a tokenizer into a folder."""
    tokenizer = Tokenizer(models.WordPiece({word: place for place, word in enumerate(vocabulary)}, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    tokenizer.save(str(folder / "tokenizer.json"))
    return folder


def bert(folder: Path, kind: Any = BertModel, tokenizer: bool = True, **config: Any) -> Any:
    torch.manual_seed(4)
    model = kind(BertConfig(**SMALL, **config)).eval()
    model.save_pretrained(folder)
    if tokenizer:
        words(folder)
    return model


def imported(folder: Path, **options: Any) -> tuple[Sheet, bytes, dict[str, bytes]]:
    return import_model(str(folder), name="text", version="1", progress=lambda _: None, **options)


def ask(parts: tuple[Sheet, bytes, dict[str, bytes]], output: str, text: str) -> Any:
    """What the bundle's parts answer to a text, as a site asks: tokenized by the step."""
    sheet, graph, files = parts
    before = prepare(sheet.contract, files).before
    assert before is not None
    return answers(sheet.contract, graph, files, before(text)).outputs[output][0]


def theirs(model: Any, text: str) -> Any:
    """What torch answers to a text, tokenized by hand."""
    known = [WORDS.index(word) for word in text.split()]
    with torch.no_grad():
        return model(torch.tensor([[2, *known, 3]]))


def test_a_classification_has_its_labels_and_a_softmax(tmp_path: Path) -> None:
    labels = {0: "idle", 1: "alarm", 2: "maintenance"}
    model = bert(tmp_path, BertForSequenceClassification, id2label=labels, label2id={v: k for k, v in labels.items()})
    (tmp_path / "README.md").write_text("---\nlicense: mit\n---\n# A model\n")
    parts = imported(tmp_path)
    contract = parts[0].contract
    assert (contract.task, contract.scores, contract.labels) == ("classification", "scores", tuple(labels.values()))
    assert [spec.shape for spec in contract.inputs] == [("batch", "sequence_length")] * 3
    inputs = ["input_ids", "attention_mask", "token_type_ids"]
    params = {"file": "tokenizer.json", "max_tokens": 24, "inputs": inputs}
    assert contract.steps == (Step("tokenize", 1, params),)
    for text in TEXTS:
        expected = torch.softmax(theirs(model, text).logits[0], dim=-1).numpy()
        np.testing.assert_allclose(ask(parts, "scores", text), expected, atol=1e-5)
    about = parts[0].about
    assert about.licence == "mit"
    assert (about.lineage["kind"], about.lineage["source"]) == ("hugging-face", tmp_path.name)
    assert {"optimum-onnx", "transformers", "torch"} <= about.lineage["tools"].keys()
    assert str(tmp_path) not in str(about.lineage)
    assert imported(tmp_path) == parts
    with new_workdir(tmp_path / "work") as part:
        fill(part, *parts)
    work = open_workdir(tmp_path / "work")
    assert (work.sheet, work.graph(), work.files()) == parts


POOLED: dict[str, Callable[[Any], Any]] = {
    "mean_tokens": lambda hidden: hidden.mean(dim=0),
    "cls_token": lambda hidden: hidden[0],
    "max_tokens": lambda hidden: hidden.max(dim=0).values,
}


def sentence_folder(folder: Path, mode: str, normalized: bool) -> Any:
    model = bert(folder)
    kinds = ["Transformer", "Pooling", *(["Normalize"] if normalized else [])]
    parts = [
        {"idx": place, "name": str(place), "path": "" if place == 0 else f"{place}_{kind}"}
        | {"type": f"sentence_transformers.models.{kind}"}
        for place, kind in enumerate(kinds)
    ]
    (folder / "modules.json").write_text(json.dumps(parts))
    (folder / "1_Pooling").mkdir()
    modes = {f"pooling_mode_{name}": name == mode for name in (*POOLED, "weightedmean_tokens")}
    (folder / "1_Pooling" / "config.json").write_text(json.dumps({"word_embedding_dimension": 16, **modes}))
    (folder / "sentence_bert_config.json").write_text('{"max_seq_length": 12}')
    return model


@pytest.mark.parametrize(
    ("mode", "normalized", "opset"), [("mean_tokens", True, 17), ("cls_token", False, 17), ("max_tokens", True, 18)]
)
def test_sentences_are_pooled_in_the_graph(tmp_path: Path, mode: str, normalized: bool, opset: int) -> None:
    model = sentence_folder(tmp_path, mode, normalized)
    parts = imported(tmp_path, opset=opset)
    contract = parts[0].contract
    assert (contract.task, contract.embedding, contract.steps[0].params["max_tokens"]) == ("embedding", "embedding", 12)
    assert [spec.shape for spec in contract.outputs] == [("batch", 16)]
    assert parts[0].about.lineage["kind"] == "sentence-transformers"
    vectors = []
    for text in TEXTS:
        vector = POOLED[mode](theirs(model, text).last_hidden_state[0])
        expected = torch.nn.functional.normalize(vector, dim=0) if normalized else vector
        vectors.append(expected.numpy())
        np.testing.assert_allclose(ask(parts, "embedding", text), vectors[-1], atol=1e-5)
    # Padding must not show: the short text in one batch with the long one.
    ids = np.array([[2, 4, 6, 7, 8, 3], [2, 9, 3, 0, 0, 0]], dtype=np.int64)
    mask = (ids != 0).astype(np.int64)
    inputs = {"input_ids": ids, "attention_mask": mask, "token_type_ids": np.zeros_like(ids)}
    padded = answers(contract, parts[1], parts[2], inputs).outputs["embedding"]
    np.testing.assert_allclose(padded, vectors[1:], atol=1e-5)


def test_a_pooling_that_is_not_known_here(tmp_path: Path) -> None:
    sentence_folder(tmp_path, "weightedmean_tokens", normalized=True)
    with pytest.raises(RejectedError, match="pooling by pooling_mode_weightedmean_tokens"):
        imported(tmp_path)
    modules = json.loads((tmp_path / "modules.json").read_text())
    modules[2]["type"] = "sentence_transformers.models.Dense"
    (tmp_path / "modules.json").write_text(json.dumps(modules))
    with pytest.raises(RejectedError, match="lists Transformer, Pooling, Dense"):
        imported(tmp_path)


def test_an_encoder_gives_its_tokens_vectors_or_one_where_that_is_asked(tmp_path: Path) -> None:
    model = bert(tmp_path, BertForMaskedLM).bert
    plain = imported(tmp_path)
    assert plain[0].contract.task == "tensors"
    hidden = theirs(model, TEXTS[0]).last_hidden_state[0]
    np.testing.assert_allclose(ask(plain, "last_hidden_state", TEXTS[0]), hidden.numpy(), atol=1e-5)
    asked = imported(tmp_path, task="embedding")
    expected = torch.nn.functional.normalize(hidden.mean(dim=0), dim=0).numpy()
    np.testing.assert_allclose(ask(asked, "embedding", TEXTS[0]), expected, atol=1e-5)
    with pytest.raises(ConfigError, match="BertForMaskedLM has no classes"):
        imported(tmp_path, task="classification")


def test_several_labels_at_once_and_one_number(tmp_path: Path) -> None:
    bert(tmp_path, BertForSequenceClassification, problem_type="multi_label_classification")
    with pytest.raises(RejectedError, match="several labels at once"):
        imported(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text()) | {"problem_type": "regression"}
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(RejectedError, match="one number"):
        imported(tmp_path)
    assert imported(tmp_path, task="tensors")[0].contract.outputs[0].name == "logits"


def test_a_model_that_writes_text(tmp_path: Path) -> None:
    GPT2LMHeadModel(GPT2Config(vocab_size=11, n_embd=8, n_layer=1, n_head=1)).save_pretrained(tmp_path)
    with pytest.raises(RejectedError, match="GPT2LMHeadModel writes text"):
        imported(tmp_path)


def test_a_fast_tokenizer_is_made_of_the_slow_ones_files(tmp_path: Path) -> None:
    model = bert(tmp_path, tokenizer=False)
    with pytest.raises(ConfigError, match=r"no tokenizer\.json"):
        imported(tmp_path)
    (tmp_path / "vocab.txt").write_text("\n".join(WORDS) + "\n")
    (tmp_path / "tokenizer_config.json").write_text('{"tokenizer_class": "BertTokenizer", "model_max_length": 20}')
    parts = imported(tmp_path)
    assert parts[0].contract.steps[0].params["max_tokens"] == 20
    hidden = theirs(model, TEXTS[1]).last_hidden_state[0].numpy()
    np.testing.assert_allclose(ask(parts, "last_hidden_state", TEXTS[1]), hidden, atol=1e-5)


def test_a_graph_of_texts_gets_its_tokenizer_from_a_file(tmp_path: Path) -> None:
    bert(tmp_path / "model", BertForSequenceClassification, num_labels=3)
    ours, graph, _ = imported(tmp_path / "model")
    path, beside = tmp_path / "theirs.onnx", tmp_path / "model" / "tokenizer.json"
    path.write_bytes(graph)
    alone, _, none = imported(path)
    assert (alone.contract.steps, none) == ((), {})
    sheet, again, files = imported(path, tokenizer=beside, task="classification")
    assert sheet.contract.steps == ours.contract.steps  # cut where the graph has no more positions
    assert files == {"tokenizer.json": beside.read_bytes()}
    assert sheet.about.lineage["command"].endswith("--tokenizer tokenizer.json")
    assert sheet.about.lineage["tokenizer_sha256"] == f"sha256:{hashlib.sha256(beside.read_bytes()).hexdigest()}"
    before, theirs = prepare(sheet.contract, files).before, prepare(ours.contract, files).before
    assert before is not None
    assert theirs is not None
    for text in (*TEXTS, "the belt " * 40):
        came = answers(sheet.contract, again, files, before(text)).outputs["scores"]
        wanted = answers(ours.contract, graph, files, theirs(text)).outputs[ours.contract.scores]
        np.testing.assert_allclose(came, wanted, atol=1e-6)


def test_a_tokenizer_that_says_itself_where_to_cut(tmp_path: Path) -> None:
    bert(tmp_path / "model", BertForSequenceClassification, num_labels=3)
    beside = tmp_path / "model" / "tokenizer.json"
    (tmp_path / "theirs.onnx").write_bytes(imported(tmp_path / "model")[1])
    told = json.loads(beside.read_text())
    told["truncation"] = {"max_length": 7, "strategy": "LongestFirst", "stride": 0, "direction": "Right"}
    beside.write_text(json.dumps(told))
    sheet = imported(tmp_path / "theirs.onnx", tokenizer=beside)[0]
    assert sheet.contract.steps[0].params["max_tokens"] == 7


def test_a_folder_takes_a_tokenizer_that_it_has_not(tmp_path: Path) -> None:
    bert(tmp_path / "model", BertForSequenceClassification, tokenizer=False)
    (tmp_path / "elsewhere").mkdir()
    words(tmp_path / "elsewhere")
    sheet, _, files = imported(tmp_path / "model", tokenizer=tmp_path / "elsewhere" / "tokenizer.json")
    assert [step.name for step in sheet.contract.steps] == ["tokenize"]
    assert files.keys() == {"tokenizer.json"}


def test_a_tokenizer_for_what_takes_no_texts(tmp_path: Path) -> None:
    bert(tmp_path / "model", BertForSequenceClassification)
    beside, graph = tmp_path / "model" / "tokenizer.json", imported(tmp_path / "model")[1]
    path = tmp_path / "theirs.onnx"
    path.write_bytes(graph)
    with pytest.raises(ConfigError, match=r"--tokenizer: the graph's input_ids is \(batch, 16\) int64.* open axis"):
        imported(path, tokenizer=beside, dims={"input_ids.1": 16})
    with pytest.raises(ConfigError, match=r"--tokenizer .*nowhere\.json: No such file"):
        imported(path, tokenizer=tmp_path / "nowhere.json")
    (tmp_path / "more").mkdir()
    words(tmp_path / "more", [*WORDS, "others", "besides"])
    with pytest.raises(RejectedError, match="it has 13 words, the graph fewer: they do not belong together"):
        imported(path, tokenizer=tmp_path / "more" / "tokenizer.json")
    (tmp_path / "broken.json").write_text("{}")
    with pytest.raises(RejectedError, match="the tokenizer's file cannot be read"):
        imported(path, tokenizer=tmp_path / "broken.json")
    model = onnx.load_from_string(graph)
    for value in model.graph.input:
        value.name = f"their_{value.name}"
    for node in model.graph.node:
        node.input[:] = [
            f"their_{name}" if f"their_{name}" in {v.name for v in model.graph.input} else name for name in node.input
        ]
    path.write_bytes(model.SerializeToString())
    with pytest.raises(ConfigError, match=r"the graph takes their_input_ids, .*export it with those names"):
        imported(path, tokenizer=beside)


def test_a_tokenizer_of_another_model(tmp_path: Path) -> None:
    bert(tmp_path)
    words(tmp_path, [*WORDS, "more", "words"])
    with pytest.raises(RejectedError, match="13 words, the model 11"):
        imported(tmp_path)


def pictures_model(folder: Path, **processor: Any) -> Any:
    torch.manual_seed(4)
    sizes = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32}
    model = ViTForImageClassification(ViTConfig(**sizes, image_size=32, patch_size=16, num_labels=3)).eval()
    model.save_pretrained(folder)
    if processor:
        (folder / "preprocessor_config.json").write_text(json.dumps(processor))
    return model


def test_pictures_are_normalized_in_the_graph(tmp_path: Path) -> None:
    pytest.importorskip("PIL", reason="the extra `images` is not installed")
    from PIL import Image

    mean, deviation = [0.4, 0.5, 0.6], [0.2, 0.25, 0.3]
    model = pictures_model(
        tmp_path,
        do_resize=True,
        size={"height": 32, "width": 32},
        do_normalize=True,
        image_mean=mean,
        image_std=deviation,
        image_processor_type="ViTImageProcessor",
    )
    sheet, graph, files = imported(tmp_path, labels=["box", "bottle", "bag"])
    contract = sheet.contract
    assert (contract.task, contract.labels, contract.steps, files) == (
        "classification",
        ("box", "bottle", "bag"),
        (),
        {},
    )
    assert contract.image is not None
    assert contract.inputs[0].shape == contract.image.shape == ("batch", 3, 32, 32)
    pixels = np.random.default_rng(0).integers(0, 256, (40, 50, 3)).astype(np.uint8)
    prepared = ViTImageProcessor.from_pretrained(tmp_path)(Image.fromarray(pixels), return_tensors="pt")
    with torch.no_grad():
        expected = torch.softmax(model(**prepared).logits, dim=-1).numpy()
    ours = picture(contract, contract.inputs[0], pixels, "pixels")
    scores = answers(contract, graph, files, {"pixel_values": ours}).outputs["scores"]
    np.testing.assert_allclose(scores, expected, atol=1e-4)


def test_pictures_that_are_cropped_elsewhere_come_as_tensors(tmp_path: Path) -> None:
    model = pictures_model(tmp_path, do_resize=True, do_center_crop=True, size={"shortest_edge": 32})
    sheet, graph, files = imported(tmp_path)
    contract = sheet.contract
    assert (contract.image, contract.inputs[0].shape) == (None, ("batch", 3, 32, 32))
    values = np.random.default_rng(0).random((2, 3, 32, 32), dtype=np.float32)
    with torch.no_grad():
        expected = torch.softmax(model(torch.from_numpy(values)).logits, dim=-1).numpy()
    scores = answers(contract, graph, files, {"pixel_values": values}).outputs["scores"]
    np.testing.assert_allclose(scores, expected, atol=1e-5)


def test_a_broken_folder_is_one_line(tmp_path: Path) -> None:
    bert(tmp_path)
    (tmp_path / "model.safetensors").write_bytes(b"\x00" * 64)
    with pytest.raises(RejectedError, match="can't export it") as raised:
        imported(tmp_path)
    assert "\n" not in str(raised.value)
    (tmp_path / "model.safetensors").unlink()
    with pytest.raises(ConfigError, match="no weights"):
        imported(tmp_path)
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(ConfigError, match="no JSON"):
        imported(tmp_path)


class Bomb:
    """What a pickle can do."""

    def __init__(self, fuse: Path) -> None:
        self.fuse = fuse

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.fuse,)


def test_nothing_in_old_weights_or_in_a_folders_code_runs(tmp_path: Path) -> None:
    folder, fuse = tmp_path / "model", tmp_path / "exploded"
    bert(folder)
    (folder / "model.safetensors").unlink()
    torch.save({"embeddings.word_embeddings.weight": Bomb(fuse)}, folder / "pytorch_model.bin")
    with pytest.raises(RejectedError, match="can't export it"):
        imported(folder)
    assert not fuse.exists()
    config = json.loads((folder / "config.json").read_text()) | {"auto_map": {"AutoModel": "code.Model"}}
    config["model_type"] = "of-ones-own"
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "code.py").write_text(f"open({str(fuse)!r}, 'w')")
    with pytest.raises(RejectedError):
        imported(folder)
    assert not fuse.exists()


class Hub(BaseHTTPRequestHandler):
    """As much of a hub's protocol as serves one folder under one id."""

    folder: Path
    commit = "c0ffee" + "0" * 34

    def do_GET(self) -> None:
        listed = [path.name for path in self.folder.iterdir()]
        if self.path == "/api/models/acme/belts/revision/main":
            siblings = [{"rfilename": name} for name in listed]
            self._answer(json.dumps({"id": "acme/belts", "sha": self.commit, "siblings": siblings}).encode())
        elif self.path.startswith(f"/acme/belts/resolve/{self.commit}/") and Path(self.path).name in listed:
            self._answer((self.folder / Path(self.path).name).read_bytes())
        else:
            self.send_response(404)
            self.send_header("X-Error-Code", "RepoNotFound")
            self.send_header("Content-Length", "0")
            self.end_headers()

    do_HEAD = do_GET

    def _answer(self, data: bytes) -> None:
        self.send_response(200)
        self.send_header("X-Repo-Commit", self.commit)
        self.send_header("ETag", hashlib.sha256(data).hexdigest())
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(data)

    def log_message(self, *_: Any) -> None:
        """Nothing."""


IMPORT = """
import sys
from edge_models.build.importing import import_model
from edge_models.errors import KitError
for source in sys.argv[1:]:
    try:
        sheet, graph, files = import_model(source, name="text", version="1", progress=lambda _: None)
        print(sheet.contract.task, sheet.about.lineage["source"], sheet.about.lineage["revision"], *files)
    except KitError as error:
        print(type(error).__name__, error)
"""


def import_elsewhere(home: Path, endpoint: str, *ids: str) -> list[str]:
    """What importing these prints, in a process of its own: where the hub is, its client reads when it is imported."""
    environment = os.environ | {"HF_ENDPOINT": endpoint, "HF_HOME": str(home), "NO_PROXY": "*"}
    command = [sys.executable, "-c", IMPORT, *ids]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True, timeout=100)
    return done.stdout.splitlines()


def test_an_id_is_fetched_from_its_hub(tmp_path: Path) -> None:
    bert(tmp_path / "model", BertForSequenceClassification, tokenizer=False)
    words(tmp_path / "model")
    (tmp_path / "model" / "train.py").write_text("never fetched, never run")
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Belts", (Hub,), {"folder": tmp_path / "model"}))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        endpoint = f"http://127.0.0.1:{server.server_address[1]}"
        came = import_elsewhere(tmp_path / "home", endpoint, "acme/belts", "acme/nothing")
    finally:
        server.shutdown()
        server.server_close()
    assert came[0] == f"classification acme/belts {Hub.commit} tokenizer.json"
    assert came[1].startswith("ConfigError acme/nothing: the hub has no such model")
    assert not list((tmp_path / "home").rglob("train.py"))


def test_a_hub_that_is_away(tmp_path: Path) -> None:
    # Port 9 (discard) of this machine: refused at once.
    (line,) = import_elsewhere(tmp_path, "http://127.0.0.1:9", "nobody/nothing")
    assert line.startswith("RetryableError nobody/nothing: no hub can be reached")
