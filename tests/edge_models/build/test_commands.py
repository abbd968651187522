"""The commands, one after the other, as a person types them. Needs the extra `models`."""

import json
import os
import subprocess
import sys
import warnings
from dataclasses import asdict, replace
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest

from edge_cli.model_evaluated import evaluated
from edge_models.build.workdir import open_workdir
from edge_models.bundle import read_bundle
from edge_models.errors import ConfigError
from edge_models.shipped import shipped_path

pytestmark = pytest.mark.skipif(
    any(find_spec(name) is None for name in ("torch", "optimum", "onnx")), reason="the extra `models` is not installed"
)


def edge_agent(*words: object, code: int = 0, said: bool = True) -> str:
    """Standard output, and what was `said`, of a command that ends with this code."""
    done = subprocess.run(
        [sys.executable, "-m", "edge_cli.main", *map(str, words)],
        capture_output=True,
        text=True,
        check=False,
        timeout=100,
        env=os.environ | {"COLUMNS": "200"},
    )
    assert done.returncode == code, done.stdout + done.stderr
    return done.stdout + (done.stderr if said else "")


@pytest.mark.timeout(400)
def test_somebody_elses_graph_becomes_a_bundle_that_answers(tmp_path: Path) -> None:
    theirs = read_bundle(shipped_path("shuttle", "2"))
    (tmp_path / "theirs.onnx").write_bytes(theirs.graph)
    np.savez(tmp_path / "data.npz", sensors=theirs.golden.inputs["sensors"], labels=np.array(theirs.golden.truth))
    work, out = tmp_path / "pump", tmp_path / "pump-1.bundle"
    edge_agent("model", "import", tmp_path / "theirs.onnx", "--labels", "normal,anomaly", "--out", work)
    assert "is there already" in edge_agent("model", "import", tmp_path / "theirs.onnx", "--out", work, code=2)
    assert "float" in edge_agent("model", "quantize", work, "--data", tmp_path / "data.npz", "--min-speedup", "100")
    refused = edge_agent("model", "quantize", work, "--data", tmp_path / "data.npz", "--max-size", "100", code=1)
    assert "100 are allowed" in refused
    page = tmp_path / "pump.html"
    edge_agent("model", "evaluate", work, "--data", tmp_path / "data.npz", "--report", page)
    assert "</html>" in page.read_text()
    edge_agent("model", "pack", work, "--data", tmp_path / "data.npz", "--out", out)
    assert "golden check passed" in edge_agent("model", "verify", out)
    np.save(tmp_path / "one.npy", theirs.golden.inputs["sensors"][:1])
    assert theirs.golden.truth[0] in edge_agent("infer", out, tmp_path / "one.npy")
    parts = tmp_path / "parts"
    edge_agent("model", "unpack", out, "--out", parts)
    assert (parts / "graph.onnx").read_bytes() == read_bundle(out).graph
    assert sorted(path.name for path in tmp_path.glob(".*")) == []


@pytest.mark.timeout(400)
def test_times_are_measured_once_for_the_same_samples(tmp_path: Path) -> None:
    theirs = read_bundle(shipped_path("trace", "2"))
    (tmp_path / "theirs.onnx").write_bytes(read_bundle(shipped_path("trace", "1")).graph)
    windows = theirs.golden.inputs["window"]
    np.savez(tmp_path / "data.npz", window=windows, labels=np.array(theirs.golden.truth))
    np.savez(tmp_path / "others.npz", window=windows[::-1])
    work = tmp_path / "trace"
    edge_agent("model", "import", tmp_path / "theirs.onnx", "--labels", ",".join(theirs.contract.labels), "--out", work)
    quantize = ["quantize", work, "--data", tmp_path / "data.npz", "--scheme", "static", "--min-speedup", "100"]
    edge_agent("model", *quantize, code=1)
    kept = json.loads((work / "times.json").read_text())["times"]
    assert "`model quantize` measured" in edge_agent("model", "evaluate", work, "--data", tmp_path / "data.npz")
    seen = evaluated(work, tmp_path / "data.npz", None)
    assert {each.name: asdict(each.speed) for each in seen.variants if each.speed} == kept
    assert set(kept) == {"float", "static"}
    assert not evaluated(work, tmp_path / "others.npz", None).kept_times
    told = json.loads((work / "times.json").read_text())
    (work / "times.json").write_text(json.dumps(told | {"cpu": "another"}))
    assert not evaluated(work, tmp_path / "data.npz", None).kept_times
    (work / "times.json").write_text(json.dumps(told | {"graphs": told["graphs"] | {"static": "sha256:0"}}))
    assert not evaluated(work, tmp_path / "data.npz", None).kept_times


@pytest.mark.timeout(400)
def test_a_pipeline_of_a_frame_is_asked_by_the_names_of_its_columns(tmp_path: Path) -> None:
    joblib = pytest.importorskip("joblib")
    pd = pytest.importorskip("pandas")
    from sklearn.compose import ColumnTransformer
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import OneHotEncoder, StandardScaler

    chance = np.random.default_rng(9)
    modes = chance.choice(["auto", "manual"], 240)
    frame = pd.DataFrame({"speed": chance.normal(900, 150, 240), "mode": modes, "load": chance.normal(40, 9, 240)})
    frame["label"] = np.where((frame["mode"] == "manual") & (frame["speed"] > 850), "worn", "ok")
    columns = [("n", StandardScaler(), ["load", "speed"]), ("k", OneHotEncoder(), ["mode"])]
    model = make_pipeline(ColumnTransformer(columns), LogisticRegression()).fit(frame, frame["label"])
    joblib.dump(model, tmp_path / "pump.pkl")
    shuffled = frame[["label", "load", "mode", "speed"]].assign(serial="p-7")
    shuffled.to_csv(tmp_path / "data.csv", index=False)
    work, out = tmp_path / "pump", tmp_path / "pump-1.bundle"
    said = edge_agent("model", "import", tmp_path / "pump.pkl", "--trust-pickle", "--out", work)
    assert "speed, mode (auto | manual), load" in said
    assert "nothing else was tried: " in edge_agent("model", "quantize", work, "--data", tmp_path / "data.csv")
    page = tmp_path / "pump.html"
    words = ["--data", tmp_path / "data.csv", "--report", page, "--json"]
    seen = json.loads(edge_agent("model", "evaluate", work, *words, said=False))
    right = float((model.predict(frame) == frame["label"]).mean())
    assert seen["variants"][0]["metrics"]["accuracy"] == pytest.approx(right)
    assert ", mode manual, load " in page.read_text()
    edge_agent("model", "pack", work, "--data", tmp_path / "data.csv", "--out", out)
    assert read_bundle(out).card["metrics"]["float"]["accuracy"] == pytest.approx(right, abs=1e-4)
    assert "golden check passed" in edge_agent("model", "verify", out)
    messages = [{"at": 1, "load": row.load, "mode": row.mode, "speed": row.speed} for row in shuffled[:5].itertuples()]
    (tmp_path / "messages.json").write_text(json.dumps(messages))
    told = json.loads(edge_agent("infer", out, tmp_path / "messages.json", "--json", said=False))
    assert [each["label"] for each in told["predictions"]] == model.predict(frame[:5]).tolist()
    shuffled.drop(columns="load").to_csv(tmp_path / "less.csv", index=False)
    refused = edge_agent("model", "evaluate", work, "--data", tmp_path / "less.csv", code=3)
    assert "input 'features': no column load (there are: label, mode, speed, serial)" in refused
    sheet = open_workdir(work).sheet
    (spec,) = sheet.contract.inputs
    turned = replace(sheet.contract, inputs=(replace(spec, columns=("load", "mode", "speed")),))
    open_workdir(work).write_sheet(replace(sheet, contract=turned))
    with pytest.raises(ConfigError, match="other columns than"):
        evaluated(work, tmp_path / "data.csv", out)


def test_one_probability_is_imported_with_its_two_labels(tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    torch.manual_seed(2)
    net = torch.nn.Sequential(torch.nn.Linear(2, 1), torch.nn.Sigmoid()).eval()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.jit.save(torch.jit.script(net), tmp_path / "net.pt")
    words = ["model", "import", tmp_path / "net.pt", "--input", "sensors:float32:batch,2", "--out"]
    assert "--labels no,yes" in edge_agent(*words, tmp_path / "number")
    said = edge_agent(*words, tmp_path / "net", "--labels", "normal,worn", "--threshold", "0.3")
    assert "classification: normal, worn" in said
    assert "'worn' is the answer from 0.3" in said
    rows = np.random.default_rng(3).standard_normal((60, 2)).astype(np.float32) * 4
    worn = net(torch.from_numpy(rows)).detach().numpy()[:, 0] > 0.3
    np.savez(tmp_path / "data.npz", sensors=rows, labels=worn.astype(int))
    seen = json.loads(
        edge_agent("model", "evaluate", tmp_path / "net", "--data", tmp_path / "data.npz", "--json", said=False)
    )
    assert 0 < worn.sum() < 60
    assert seen["variants"][0]["metrics"]["accuracy"] == 1.0
    out = tmp_path / "net.bundle"
    edge_agent("model", "pack", tmp_path / "net", "--data", tmp_path / "data.npz", "--out", out)
    np.save(tmp_path / "rows.npy", rows)
    told = json.loads(edge_agent("infer", out, tmp_path / "rows.npy", "--json", said=False))
    assert [each["label"] == "worn" for each in told["predictions"]] == worn.tolist()
