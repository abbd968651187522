"""TorchScript and torch.export files → graphs that answer as the networks do."""

import warnings
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest

if any(find_spec(name) is None for name in ("onnx", "onnxscript", "torch")):
    pytest.skip("the extra `models` is not installed", allow_module_level=True)

import torch
from torch import nn

from edge_models.build.importing import import_model
from edge_models.build.importing.wanted import parse_inputs
from edge_models.build.run import answers
from edge_models.build.workdir import Sheet
from edge_models.errors import ConfigError, RejectedError
from edge_models.tensors import TensorSpec

WINDOW = parse_inputs(["window:float32:batch,3,steps"])

SAMPLES = np.random.default_rng(2).standard_normal((5, 3, 40)).astype(np.float32)


def network() -> nn.Module:
    """(batch, 3, steps) → (batch, 4); dropout, so that a graph in training mode would be found out."""
    torch.manual_seed(1)
    pool = nn.Sequential(nn.AdaptiveAvgPool1d(1), Flat())
    return nn.Sequential(nn.Conv1d(3, 8, 5), nn.ReLU(), nn.Dropout(0.5), *pool, nn.Linear(8, 4)).eval()


class Flat(nn.Module):  # type: ignore[misc] # torch is untyped here
    """By the batch's size, which must not become a constant of the graph."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.view(x.size(0), 8)


def script(tmp_path: Path, net: nn.Module) -> str:
    path = tmp_path / "net.pt"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.jit.save(torch.jit.script(net), path)
    return str(path)


def exported(tmp_path: Path, net: nn.Module, dynamic: bool) -> str:
    path = tmp_path / "net.pt2"
    shapes = {"input": {0: torch.export.Dim("samples"), 2: torch.export.Dim("steps", min=8, max=4096)}}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        program = torch.export.export(net, (torch.zeros(2, 3, 40),), dynamic_shapes=shapes if dynamic else None)
        torch.export.save(program, path)
    return str(path)


def imported(source: str, **options: Any) -> tuple[Sheet, bytes]:
    sheet, graph, files = import_model(source, name="net", version="1", progress=lambda _: None, **options)
    assert files == {}
    return sheet, graph


def logits() -> Any:
    with torch.no_grad():
        return network()(torch.from_numpy(SAMPLES)).numpy()


def test_torchscript_with_the_shapes_it_does_not_hold(tmp_path: Path) -> None:
    source = script(tmp_path, network())
    sheet, graph = imported(source, inputs=WINDOW)
    contract = sheet.contract
    assert contract.task == "tensors"
    assert contract.inputs == (TensorSpec("window", ("batch", 3, "steps"), "float32"),)
    assert contract.outputs == (TensorSpec("output", ("batch", 4), "float32"),)
    given = answers(contract, graph, {}, {"window": SAMPLES}).outputs["output"]
    np.testing.assert_allclose(given, logits(), atol=1e-5)
    assert sheet.about.lineage["kind"] == "torchscript"
    assert "--input window:float32:batch,3,steps" in sheet.about.lineage["command"]
    assert imported(source, inputs=WINDOW)[1] == graph


def test_torchscript_as_a_classification(tmp_path: Path) -> None:
    labels = ["a", "b", "c", "d"]
    sheet, graph = imported(script(tmp_path, network()), inputs=WINDOW, task="classification", labels=labels, opset=18)
    scores = answers(sheet.contract, graph, {}, {"window": SAMPLES}).outputs[sheet.contract.scores]
    np.testing.assert_allclose(scores, torch.softmax(torch.from_numpy(logits()), dim=1).numpy(), atol=1e-5)
    assert sheet.contract.labels == tuple(labels)


def test_torchscript_without_shapes_asks_for_them(tmp_path: Path) -> None:
    source = script(tmp_path, network())
    with pytest.raises(ConfigError, match=r"says no shapes: .*--input image:float32:batch,3,224,224"):
        imported(source)
    with pytest.raises(RejectedError, match="does not run on inputs window:float32:batch,7,steps") as raised:
        imported(source, inputs=parse_inputs(["window:float32:batch,7,steps"]))
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("dynamic", [True, False])
def test_torch_export_holds_its_shapes(tmp_path: Path, dynamic: bool) -> None:
    source = exported(tmp_path, network(), dynamic)
    with pytest.raises(ConfigError, match="--trust-pickle"):
        imported(source)
    sheet, graph = imported(source, trust_pickle=True)
    contract = sheet.contract
    assert imported(source, trust_pickle=True)[1] == graph
    assert b"test_importing_torch" not in graph  # torch notes where each line of a network stands
    with pytest.raises(ConfigError, match="says its own shapes"):
        imported(source, trust_pickle=True, inputs=WINDOW)
    assert sheet.about.lineage["kind"] == "torch-export"
    assert contract.inputs[0].shape[1] == 3
    assert contract.batched == dynamic
    samples = SAMPLES if dynamic else SAMPLES[:2]
    inputs = {contract.inputs[0].name: samples if dynamic else samples[np.newaxis]}
    given = answers(contract, graph, {}, inputs).outputs["output"]
    np.testing.assert_allclose(given.reshape(-1, 4), logits()[: len(samples)], atol=1e-5)


class Two(nn.Module):  # type: ignore[misc] # torch is untyped here
    """Several inputs and outputs."""

    def forward(self, a: torch.Tensor, b: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return a + b, a - b


def test_several_inputs_and_outputs_keep_their_order(tmp_path: Path) -> None:
    inputs = parse_inputs(["a:float32:batch,3", "b:float32:batch,3"])
    sheet, graph = imported(script(tmp_path, Two()), inputs=inputs)
    assert [spec.name for spec in sheet.contract.outputs] == ["output_0", "output_1"]
    a, b = SAMPLES[:, 0, :3].copy(), SAMPLES[:, 1, :3].copy()
    given = answers(sheet.contract, graph, {}, {"a": a, "b": b}).outputs
    np.testing.assert_allclose(given["output_0"], a + b)
    np.testing.assert_allclose(given["output_1"], a - b)


def test_a_module_that_was_saved_whole_needs_permission(tmp_path: Path) -> None:
    path = tmp_path / "net.pth"
    torch.save(network(), path)
    with pytest.raises(ConfigError, match="save TorchScript"):
        imported(str(path), inputs=WINDOW)
    sheet, graph = imported(str(path), inputs=WINDOW, trust_pickle=True)
    given = answers(sheet.contract, graph, {}, {"window": SAMPLES}).outputs["output"]
    np.testing.assert_allclose(given, logits(), atol=1e-5)


def test_weights_alone_are_no_network(tmp_path: Path) -> None:
    path = tmp_path / "weights.pt"
    torch.save(network().state_dict(), path)
    with pytest.raises(ConfigError, match="holds a OrderedDict, no network"):
        imported(str(path), inputs=WINDOW, trust_pickle=True)


def test_half_a_file_is_one_line(tmp_path: Path) -> None:
    path = Path(script(tmp_path, network()))
    path.write_bytes(path.read_bytes()[:500])
    with pytest.raises(RejectedError, match=r"net\.pt: torch can't read it") as raised:
        imported(str(path), inputs=WINDOW, trust_pickle=True)
    assert "\n" not in str(raised.value)
