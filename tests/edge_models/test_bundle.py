"""models/FORMAT.md: what a bundle is, and that nothing else is taken for one."""

import hashlib
import io
import tarfile
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from edge_models import layout, ustar
from edge_models.bundle import MAX_BUNDLE_BYTES, Bundle, Golden, read_bundle, write_bundle
from edge_models.digests import Digest
from edge_models.errors import ConfigError, RejectedError
from edge_models.layout import MAX_JSON_BYTES, Layer

JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**63) | st.floats(allow_nan=False) | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=12,
)


def write(path: Path, bundle: Bundle) -> Digest:
    return write_bundle(path, contract=bundle.contract, graph=bundle.graph, golden=bundle.golden, card=bundle.card)


def members(archive: bytes) -> dict[str, bytes]:
    return {name: bytes(data) for name, data in ustar.unpack(archive).items()}


def resealed(archive: bytes, changes: Mapping[str, bytes | None]) -> bytes:
    """The bundle with these files changed (None: left out), and every digest made to agree again."""
    files = {path: bytes(data) for path, data in layout.unpack(archive).items()}
    changed = {path: data for path, data in (files | dict(changes)).items() if data is not None}
    return layout.pack([Layer(p, layout.DOC, d) for p, d in changed.items()], descriptor={}, config={})


def contract_json(bundle: Bundle, **changes: Any) -> bytes:
    return layout.dump_json(bundle.contract.to_json() | changes)


# What a bundle is


def test_what_was_written_is_read_back(sample: Bundle, tmp_path: Path) -> None:
    digest = write(tmp_path / "b.bundle", sample)
    back = read_bundle(tmp_path / "b.bundle")
    assert back.digest == digest == "sha256:" + hashlib.sha256((tmp_path / "b.bundle").read_bytes()).hexdigest()
    assert (back.contract, back.graph, back.card) == (sample.contract, sample.graph, sample.card)
    assert back.golden.truth == sample.golden.truth
    np.testing.assert_array_equal(back.golden.inputs["sensors"], sample.golden.inputs["sensors"])
    np.testing.assert_array_equal(back.golden.outputs["probabilities"], sample.golden.outputs["probabilities"])


def test_the_same_parts_give_the_same_bytes(sample: Bundle, sample_path: Path, tmp_path: Path) -> None:
    card = dict(reversed(list(sample.card.items())))
    write(tmp_path / "again.bundle", replace(sample, card=card))
    assert (tmp_path / "again.bundle").read_bytes() == sample_path.read_bytes()


def test_any_tar_reader_finds_an_oci_layout(sample_path: Path) -> None:
    with tarfile.open(sample_path) as tar:
        infos = tar.getmembers()
        files = {info.name: tar.extractfile(info).read() for info in infos}  # type: ignore[union-attr]
    assert [info.name for info in infos] == sorted(files)
    assert {(info.mtime, info.uid, info.gid, info.mode) for info in infos} == {(0, 0, 0, 0o644)}
    assert orjson.loads(files["oci-layout"]) == {"imageLayoutVersion": "1.0.0"}
    for name, data in files.items():
        if name.startswith("blobs/"):
            assert name == "blobs/sha256/" + hashlib.sha256(data).hexdigest()
    (entry,) = orjson.loads(files["index.json"])["manifests"]
    manifest = orjson.loads(files["blobs/sha256/" + entry["digest"].removeprefix("sha256:")])
    assert manifest["artifactType"] == "application/vnd.cncf.model.manifest.v1+json"
    assert {layer["annotations"]["org.cncf.model.filepath"]: layer["mediaType"] for layer in manifest["layers"]} == {
        "graph.onnx": "application/vnd.cncf.model.weight.v1.raw",
        "contract.json": "application/vnd.cncf.model.weight.config.v1.raw",
        "card.json": "application/vnd.cncf.model.doc.v1.raw",
        "golden/truth.json": "application/vnd.cncf.model.dataset.v1.raw",
        "golden/inputs/sensors.npy": "application/vnd.cncf.model.dataset.v1.raw",
        "golden/outputs/probabilities.npy": "application/vnd.cncf.model.dataset.v1.raw",
    }


def test_numpy_reads_the_golden_arrays(sample: Bundle, sample_path: Path) -> None:
    file = io.BytesIO(layout.unpack(sample_path.read_bytes())["golden/inputs/sensors.npy"])
    np.testing.assert_array_equal(np.load(file, allow_pickle=False), sample.golden.inputs["sensors"])


def test_files_of_a_later_kit_are_passed_over(sample: Bundle, sample_path: Path) -> None:
    archive = resealed(sample_path.read_bytes(), {"tokenizer.json": b"{}"})
    assert read_bundle(archive).contract == sample.contract


# Damage


def test_a_flipped_bit_in_any_byte_is_refused(sample_path: Path) -> None:
    sound = sample_path.read_bytes()
    for at in range(len(sound)):
        damaged = bytearray(sound)
        damaged[at] ^= 1 << (at % 8)
        with pytest.raises(RejectedError):
            read_bundle(bytes(damaged))


def test_a_truncated_or_longer_file_is_refused(sample_path: Path) -> None:
    sound = sample_path.read_bytes()
    for length in range(0, len(sound), 64):
        with pytest.raises(RejectedError):
            read_bundle(sound[:length])
    for tail in (b"\0", bytes(512), b"x" * 512):
        with pytest.raises(RejectedError):
            read_bundle(sound + tail)


@given(st.binary(max_size=3000))
def test_noise_is_refused(noise: bytes) -> None:
    with pytest.raises(RejectedError, match="bundle"):
        read_bundle(noise)


def test_a_file_that_is_no_tar_names_itself(tmp_path: Path) -> None:
    (tmp_path / "note.bundle").write_text("hello")
    with pytest.raises(RejectedError, match=r"note\.bundle: it is truncated, or not a tar archive"):
        read_bundle(tmp_path / "note.bundle")


def test_a_missing_file_is_a_config_error(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"none\.bundle: No such file"):
        read_bundle(tmp_path / "none.bundle")
    with pytest.raises(ConfigError, match="Is a directory"):
        read_bundle(tmp_path)


def test_an_oversize_file_is_refused_unread(tmp_path: Path) -> None:
    path = tmp_path / "big.bundle"
    with path.open("wb") as file:
        file.truncate(MAX_BUNDLE_BYTES + 1)
    with pytest.raises(RejectedError, match=f"larger than {MAX_BUNDLE_BYTES}"):
        read_bundle(path)


# The layout


def test_a_missing_blob_is_named(sample: Bundle, sample_path: Path) -> None:
    files = members(sample_path.read_bytes())
    del files["blobs/sha256/" + hashlib.sha256(sample.graph).hexdigest()]
    with pytest.raises(RejectedError, match=r"graph\.onnx: its blob sha256:[0-9a-f]{64} is missing"):
        read_bundle(ustar.pack(files))


@pytest.mark.parametrize("name", ["index.json", "oci-layout"])
def test_a_missing_top_file_is_named(sample_path: Path, name: str) -> None:
    files = members(sample_path.read_bytes())
    del files[name]
    with pytest.raises(RejectedError, match=f"{name} is missing"):
        read_bundle(ustar.pack(files))


def test_a_blob_the_manifest_does_not_name_is_refused(sample_path: Path) -> None:
    files = members(sample_path.read_bytes())
    extra = "blobs/sha256/" + hashlib.sha256(b"stowaway").hexdigest()
    with pytest.raises(RejectedError, match=f"{extra}: the manifest does not name it"):
        read_bundle(ustar.pack(files | {extra: b"stowaway"}))


def test_another_blob_under_a_digest_is_refused(sample: Bundle, sample_path: Path) -> None:
    files = members(sample_path.read_bytes())
    name = "blobs/sha256/" + hashlib.sha256(sample.graph).hexdigest()
    files[name] = bytes(len(sample.graph))
    with pytest.raises(RejectedError, match=r"graph\.onnx: its bytes are not those of sha256:"):
        read_bundle(ustar.pack(files))
    files[name] = bytes(9)
    with pytest.raises(RejectedError, match=r"graph\.onnx: 9 bytes, where 700 were named"):
        read_bundle(ustar.pack(files))


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(key=st.sampled_from(["schemaVersion", "mediaType", "artifactType", "config", "layers"]), value=JSON)
def test_a_manifest_of_the_wrong_form_is_refused(sample_path: Path, key: str, value: Any) -> None:
    files = members(sample_path.read_bytes())
    index = orjson.loads(files["index.json"])
    manifest = orjson.loads(files["blobs/sha256/" + index["manifests"][0]["digest"].removeprefix("sha256:")])
    forged = layout.dump_json(manifest | {key: value})
    digest = hashlib.sha256(forged).hexdigest()
    index["manifests"][0] |= {"digest": "sha256:" + digest, "size": len(forged)}
    files |= {"index.json": layout.dump_json(index), "blobs/sha256/" + digest: forged}
    with pytest.raises(RejectedError):
        read_bundle(ustar.pack(files))


# What is inside


@pytest.mark.parametrize("path", ["graph.onnx", "contract.json", "card.json", "golden/truth.json"])
def test_a_missing_or_empty_part_is_named(sample_path: Path, path: str) -> None:
    for content in (None, b""):
        with pytest.raises(RejectedError, match=f"{path} is missing or empty"):
            read_bundle(resealed(sample_path.read_bytes(), {path: content}))


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(path=st.sampled_from(["contract.json", "golden/truth.json", "card.json"]), value=JSON)
def test_documents_of_any_form_end_in_a_bundle_or_a_refusal(sample_path: Path, path: str, value: Any) -> None:
    try:
        read_bundle(resealed(sample_path.read_bytes(), {path: orjson.dumps(value)}))
    except RejectedError:
        return
    assert path == "card.json"
    assert isinstance(value, dict)


def test_a_document_that_is_too_large_is_refused(sample_path: Path) -> None:
    card = layout.dump_json({"summary": "x" * MAX_JSON_BYTES})
    with pytest.raises(RejectedError, match=r"card\.json: .* more than"):
        read_bundle(resealed(sample_path.read_bytes(), {"card.json": card}))


def test_a_document_nested_without_end_is_refused(sample_path: Path) -> None:
    for path in ("card.json", "contract.json", "golden/truth.json"):
        with pytest.raises(RejectedError, match=f"{path}: not JSON"):
            read_bundle(resealed(sample_path.read_bytes(), {path: b"[" * 100_000}))


def test_golden_arrays_must_be_those_of_the_contract(sample: Bundle, sample_path: Path) -> None:
    sound = sample_path.read_bytes()
    inputs = list(sample.contract.to_json()["inputs"])
    cases = {
        r"golden/inputs/sensors\.npy: golden input 'sensors': came \(4, 3\) float32, wanted \(batch, 5\)": {
            "contract.json": contract_json(sample, inputs=[inputs[0] | {"shape": ["batch", 5]}])
        },
        r"golden/inputs/other\.npy is missing": {
            "contract.json": contract_json(sample, inputs=[inputs[0] | {"name": "other"}])
        },
        r"golden/inputs/sensors\.npy: 4 samples, where golden/truth\.json has 1": {"golden/truth.json": b'["normal"]'},
        r"golden/truth\.json: not a list of the contract's labels": {"golden/truth.json": b'["broken"]'},
        r"golden/inputs/sensors\.npy: not a plain \.npy file": {"golden/inputs/sensors.npy": b"PK\x03\x04"},
    }
    for message, changes in cases.items():
        with pytest.raises(RejectedError, match=message):
            read_bundle(resealed(sound, changes))


# Writing


def test_parts_that_disagree_are_refused_and_nothing_is_written(sample: Bundle, tmp_path: Path) -> None:
    path = tmp_path / "b.bundle"
    path.write_bytes(b"what was here")
    golden = sample.golden
    for wrong in (
        replace(sample, golden=replace(golden, truth=("broken",) * 4)),
        replace(sample, golden=Golden(golden.inputs, {}, golden.truth)),
        replace(sample, golden=replace(golden, inputs={"sensors": golden.inputs["sensors"].astype(np.float64)})),
        replace(sample, graph=b""),
    ):
        with pytest.raises(RejectedError):
            write(path, wrong)
    assert path.read_bytes() == b"what was here"
    assert [p.name for p in tmp_path.iterdir()] == ["b.bundle"]


def test_a_place_that_cannot_be_written_is_a_config_error(sample: Bundle, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"none/b\.bundle: No such file"):
        write(tmp_path / "none" / "b.bundle", sample)
    (tmp_path / "folder.bundle").mkdir()
    with pytest.raises(ConfigError, match=r"folder\.bundle: Is a directory"):
        write(tmp_path / "folder.bundle", sample)
    assert [p.name for p in tmp_path.iterdir()] == ["folder.bundle"]
