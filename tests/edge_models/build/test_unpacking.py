"""`unpack`: the parts of a bundle as files, whole or not at all, and never outside the folder."""

from pathlib import Path

import numpy as np
import orjson
import pytest

from edge_models import layout
from edge_models.build.unpacking import unpack
from edge_models.bundle import Bundle, write_bundle
from edge_models.errors import ConfigError, RejectedError
from edge_models.layout import Layer

STRANGE = (
    "../outside.txt",
    "/outside.txt",
    "files/../../outside.txt",
    "files/.hidden",
    "golden/inputs/a/b.npy",
    "later",
)


def files_under(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_every_part_is_a_file(sample: Bundle, tmp_path: Path) -> None:
    path = tmp_path / "pump.bundle"
    parts = {"contract": sample.contract, "graph": sample.graph, "golden": sample.golden, "card": sample.card}
    write_bundle(path, **parts, files={"tokenizer.json": b"{}", "second.onnx": b"graph"})  # type: ignore[arg-type]
    unpack(path, tmp_path / "parts" / "pump")
    written = files_under(tmp_path / "parts" / "pump")
    assert set(written) == {
        "graph.onnx",
        "contract.json",
        "card.json",
        "golden/truth.json",
        "golden/inputs/sensors.npy",
        "golden/outputs/probabilities.npy",
        "files/tokenizer.json",
        "files/second.onnx",
    }
    assert written["graph.onnx"] == sample.graph
    assert orjson.loads(written["card.json"]) == sample.card
    assert written["files/second.onnx"] == b"graph"
    array = np.load(tmp_path / "parts" / "pump" / "golden" / "inputs" / "sensors.npy", allow_pickle=False)
    np.testing.assert_array_equal(array, sample.golden.inputs["sensors"])


def test_names_that_no_bundle_should_have_are_never_written_to(sample_path: Path, tmp_path: Path) -> None:
    files = {path: bytes(data) for path, data in layout.unpack(sample_path.read_bytes()).items()}
    layers = [Layer(path, layout.DOC, data) for path, data in files.items()]
    # read_bundle refuses some of these names; what it passes over must not be written either.
    for number, name in enumerate(STRANGE):
        bundle = tmp_path / f"{number}.bundle"
        bundle.write_bytes(layout.pack([*layers, Layer(name, layout.DOC, b"x")], descriptor={}, config={}))
        out = tmp_path / f"out-{number}"
        try:
            unpack(bundle, out)
        except RejectedError:
            assert not out.exists()
        else:
            assert set(files_under(out)) == set(files)
    assert not list(tmp_path.rglob("outside.txt")) + list(tmp_path.parent.glob("outside.txt"))
    assert not Path("/outside.txt").exists()


def test_a_damaged_bundle_leaves_nothing(sample_path: Path, tmp_path: Path) -> None:
    damaged = tmp_path / "damaged.bundle"
    damaged.write_bytes(sample_path.read_bytes()[:-1024])
    with pytest.raises(RejectedError, match=r"bundle .*damaged\.bundle: "):
        unpack(damaged, tmp_path / "out")
    assert [path.name for path in tmp_path.iterdir()] == ["damaged.bundle"]


def test_an_interruption_leaves_nothing(sample_path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(self: Path, data: bytes) -> int:
        raise KeyboardInterrupt

    monkeypatch.setattr(Path, "write_bytes", interrupted)
    with pytest.raises(KeyboardInterrupt):
        unpack(sample_path, tmp_path / "out")
    assert not list(tmp_path.iterdir())


def test_a_folder_that_is_there_is_left_alone(sample_path: Path, tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("mine")
    with pytest.raises(ConfigError, match="is there already"):
        unpack(sample_path, tmp_path)
    assert files_under(tmp_path) == {"mine.txt": b"mine"}
    with pytest.raises(ConfigError, match="No such file"):
        unpack(tmp_path / "missing.bundle", tmp_path / "out")
