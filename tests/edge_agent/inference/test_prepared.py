"""Prepared copies: they answer as the graph does, to the bit, and whatever is wrong with one, the graph still runs."""

import logging
import os
import shutil
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
import pytest
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from edge_agent.brain import deploy
from edge_agent.inference import prepared as prepared_module
from edge_agent.inference.model import Model
from edge_agent.inference.prepared import (
    DISK,
    MEMORY,
    MIN_BYTES,
    RESERVE_BYTES,
    PreparedGraphs,
    free_memory_bytes,
    this_machine,
)
from edge_agent.inference.providers import Providers
from edge_agent.inference.session import open_session
from edge_models.bundle import Golden, read_bundle, write_bundle
from edge_models.contract import Contract
from edge_models.digests import Digest, digest_of
from edge_models.errors import RejectedError
from edge_models.tensors import TensorSpec
from edge_sync.release import AgentSpec, resolve

Array = NDArray[Any]
WIDTH = 512
OF = Digest("sha256:" + "ab" * 32)
"""A bundle's digest."""
ALL = [OF]


def model_bytes(nodes: Sequence[Any], constants: dict[str, Array], shape: list[Any]) -> bytes:
    """``window`` of this shape → ``scores (batch, 4)``, ONNX of these nodes."""
    graph = helper.make_graph(
        list(nodes),
        "graph",
        [helper.make_tensor_value_info("window", TensorProto.FLOAT, ["batch", *shape])],
        [helper.make_tensor_value_info("scores", TensorProto.FLOAT, ["batch", 4])],
        [numpy_helper.from_array(array, name) for name, array in constants.items()],
    )
    data: bytes = helper.make_model(
        graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8
    ).SerializeToString()
    return data


def normal(seed: int, *shape: int) -> Array:
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def float_graph(seed: int = 1, layers: int = 2) -> bytes:
    """A megabyte a layer."""
    nodes, constants, last = [], {}, "window"
    for n in range(layers):
        constants[f"w{n}"] = normal(seed + n, WIDTH, WIDTH) / np.float32(WIDTH**0.5)
        nodes.append(helper.make_node("MatMul", [last, f"w{n}"], [f"m{n}"]))
        nodes.append(helper.make_node("Tanh", [f"m{n}"], [f"h{n}"]))
        last = f"h{n}"
    constants["out"] = normal(seed + 99, WIDTH, 4)
    nodes.append(helper.make_node("MatMul", [last, "out"], ["logits"]))
    nodes.append(helper.make_node("Softmax", ["logits"], ["scores"], axis=-1))
    return model_bytes(nodes, constants, [WIDTH])


def int8_graph() -> bytes:
    """As dynamic quantization writes it."""
    wide = 9 * WIDTH
    constants: dict[str, Array] = {
        "q": np.random.default_rng(3).integers(-63, 64, (WIDTH, wide)).astype(np.int8),
        "zero": np.array(0, np.int8),
        "scale": np.array(0.001, np.float32),
        "out": normal(4, wide, 4),
    }
    nodes = [
        helper.make_node("DynamicQuantizeLinear", ["window"], ["x", "x_scale", "x_zero"]),
        helper.make_node("MatMulInteger", ["x", "q", "x_zero", "zero"], ["products"]),
        helper.make_node("Cast", ["products"], ["cast"], to=TensorProto.FLOAT),
        helper.make_node("Mul", ["x_scale", "scale"], ["both"]),
        helper.make_node("Mul", ["cast", "both"], ["hidden"]),
        helper.make_node("MatMul", ["hidden", "out"], ["logits"]),
        helper.make_node("Softmax", ["logits"], ["scores"], axis=-1),
    ]
    return model_bytes(nodes, constants, [WIDTH])


def conv_graph() -> bytes:
    """Convolutions, whose layout the optimiser changes for this CPU."""
    constants = {
        "k1": normal(5, 64, 8, 3, 3),
        "k2": normal(6, 1024, 64, 3, 3) / np.float32(64),
        "out": normal(7, 1024, 4),
    }
    nodes = [
        helper.make_node("Reshape", ["window", "square"], ["picture"]),
        helper.make_node("Conv", ["picture", "k1"], ["c1"], pads=[1, 1, 1, 1]),
        helper.make_node("Relu", ["c1"], ["r1"]),
        helper.make_node("Conv", ["r1", "k2"], ["c2"], pads=[1, 1, 1, 1]),
        helper.make_node("Relu", ["c2"], ["r2"]),
        helper.make_node("GlobalAveragePool", ["r2"], ["pooled"]),
        helper.make_node("Flatten", ["pooled"], ["flat"]),
        helper.make_node("MatMul", ["flat", "out"], ["logits"]),
        helper.make_node("Softmax", ["logits"], ["scores"], axis=-1),
    ]
    return model_bytes(nodes, {**constants, "square": np.array([-1, 8, 8, 8], np.int64)}, [WIDTH])


@pytest.fixture(scope="module")
def graph() -> bytes:
    return float_graph()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "prepared"


@pytest.fixture(scope="module")
def made_once(graph: bytes, tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("made") / "prepared"
    PreparedGraphs(made).open(OF, graph)
    return made


@pytest.fixture
def copy(made_once: Path, folder: Path) -> Path:
    """The copy of `graph`, made by this machine."""
    shutil.copytree(made_once, folder)
    [copied] = folder.iterdir()
    return copied


@pytest.fixture
def logged(caplog: pytest.LogCaptureFixture) -> Callable[[], list[str]]:
    """What was logged since the last call."""
    caplog.set_level(logging.INFO, logger="edge_agent.inference.prepared")

    def take() -> list[str]:
        said = [f"{record.message} {getattr(record, 'reason', '')}".strip() for record in caplog.records]
        caplog.clear()
        return said

    return take


def answer(session: Any, samples: int = 5) -> Array:
    result: Array = session.run(["scores"], {"window": normal(samples, samples, WIDTH)})[0]
    return result


def same(session: Any, graph: bytes) -> bool:
    """Whether it answers as a plain session of the graph does, to the bit, for one sample and for many."""
    plain = open_session(graph)
    return all(answer(session, n).tobytes() == answer(plain, n).tobytes() for n in (1, 5, 64))


def copies(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if path.is_dir())


def mapped() -> str:
    return Path("/proc/self/maps").read_text()


@pytest.mark.parametrize("make", [float_graph, int8_graph, conv_graph])
def test_a_copy_answers_as_the_graph_does_to_the_bit_and_is_made_once(
    make: Callable[[], bytes], folder: Path, logged: Callable[[], list[str]]
) -> None:
    graph = make()
    assert len(graph) > MIN_BYTES
    assert same(PreparedGraphs(folder).open(OF, graph), graph)
    [copy] = copies(folder)
    made = copy.stat()
    assert (made.st_mode & 0o777, folder.stat().st_mode & 0o777) == (0o700, 0o700)
    assert {path.name for path in copy.iterdir()} == {"graph.onnx", "weights.bin", "manifest.json"}
    assert (copy / "graph.onnx").stat().st_size < len(graph) / 4
    again = PreparedGraphs(folder).open(OF, graph)
    assert str(copy / "weights.bin") in mapped()
    assert same(again, graph)
    assert (copies(folder), copy.stat().st_ino) == ([copy], made.st_ino)
    assert logged() == []


def test_a_small_graph_gets_none(folder: Path) -> None:
    small = model_bytes(
        [
            helper.make_node("MatMul", ["window", "out"], ["logits"]),
            helper.make_node("Softmax", ["logits"], ["scores"], axis=-1),
        ],
        {"out": normal(1, WIDTH, 4)},
        [WIDTH],
    )
    assert same(PreparedGraphs(folder).open(OF, small), small)
    assert not folder.exists()


def test_a_graph_that_cannot_run_is_refused_as_without_copies(folder: Path) -> None:
    noise = bytes(MIN_BYTES)
    with pytest.raises(RejectedError) as plain:
        open_session(noise)
    with pytest.raises(RejectedError) as prepared:
        PreparedGraphs(folder).open(OF, noise)
    assert str(prepared.value) == str(plain.value)


@pytest.mark.parametrize("name", ["graph.onnx", "weights.bin", "manifest.json"])
@pytest.mark.parametrize("where", [0.0, 0.37, 0.999])
def test_a_flipped_bit_is_found_and_the_copy_made_anew(
    folder: Path, copy: Path, graph: bytes, name: str, where: float, logged: Callable[[], list[str]]
) -> None:
    sound = {path.name: path.read_bytes() for path in copy.iterdir()}
    data = bytearray(sound[name])
    data[int(where * len(data))] ^= 0x10
    (copy / name).write_bytes(data)
    assert same(PreparedGraphs(folder).open(OF, graph), graph)
    assert logged() == ["prepared_copy_damaged"]
    assert {path.name: path.read_bytes() for path in copy.iterdir()} == sound


@pytest.mark.parametrize("name", ["graph.onnx", "weights.bin", "manifest.json"])
@pytest.mark.parametrize("cut", [True, False], ids=["cut", "gone"])
def test_a_copy_that_lacks_something_is_made_anew(
    folder: Path, copy: Path, graph: bytes, name: str, cut: bool, logged: Callable[[], list[str]]
) -> None:
    prepared = PreparedGraphs(folder)
    if cut:
        os.truncate(copy / name, (copy / name).stat().st_size // 2)
    else:
        (copy / name).unlink()
    assert same(prepared.open(OF, graph), graph)
    assert logged() == ["prepared_copy_damaged"]
    assert same(prepared.open(OF, graph), graph)
    assert logged() == []


OTHERS = {
    "cpu": ["flags: fpu vme", "model name: another"],
    "onnxruntime": ["1.99.0", "another build"],
    "machine_id": "another",
    "session": {"threads": "2"},
}


@pytest.mark.parametrize("what", list(OTHERS))
def test_a_copy_of_another_machine_version_or_setting_is_none(
    folder: Path, copy: Path, graph: bytes, what: str, logged: Callable[[], list[str]]
) -> None:
    mine, theirs = PreparedGraphs(folder), PreparedGraphs(folder, {**this_machine(), what: OTHERS[what]})
    assert same(theirs.open(OF, graph), graph)
    [foreign] = [each for each in copies(folder) if each != copy]
    mine.keep_only(ALL)
    assert copies(folder) == [copy]
    # Under the name of theirs it is none either: what it was made on is in it.
    copy.rename(foreign)
    assert same(theirs.open(OF, graph), graph)
    assert logged() == ["prepared_copy_damaged"]


def test_this_machine_is_told_from_others_by_what_its_kernels_depend_on() -> None:
    machine = this_machine()
    assert machine == this_machine()
    assert any(line.startswith(("flags: ", "Features: ")) for line in machine["cpu"])
    assert not any("MHz" in line or "bogomips" in line for line in machine["cpu"])


def test_another_bundle_has_a_copy_of_its_own(folder: Path, copy: Path, graph: bytes) -> None:
    prepared, other, other_bundle = PreparedGraphs(folder), float_graph(seed=50), Digest("sha256:" + "cd" * 32)
    for digest, each in ((OF, graph), (other_bundle, other)):
        assert same(prepared.open(digest, each), each)
    assert len(copies(folder)) == 2
    running = prepared.open(OF, graph)
    prepared.keep_only([other_bundle, "sha256:" + "ef" * 32])
    [kept] = copies(folder)
    assert kept.name.startswith("cd" * 32)
    assert same(running, graph), "what runs keeps its files"
    prepared.keep_only([])
    assert list(folder.iterdir()) == []


def test_nothing_to_keep_is_no_error(folder: Path) -> None:
    PreparedGraphs(folder).keep_only(ALL)
    assert not folder.exists()


OPEN = textwrap.dedent("""
    import logging, pathlib, resource, sys
    from edge_agent.inference.prepared import PreparedGraphs
    logging.basicConfig(format="%(message)s", stream=sys.stdout)
    if len(sys.argv) > 3:
        resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[3]), int(sys.argv[3])))
    graph = pathlib.Path(sys.argv[2]).read_bytes()
    PreparedGraphs(pathlib.Path(sys.argv[1])).open("sha256:" + "ab" * 32, graph)
    print("opened", flush=True)
""")


def opening(folder: Path, graph: Path, *limit: object) -> subprocess.Popen[str]:
    """A process that opens a graph."""
    words = [sys.executable, "-c", OPEN, str(folder), str(graph), *map(str, limit)]
    return subprocess.Popen(words, stdout=subprocess.PIPE, text=True)


def children_of(folder: Path) -> list[int]:
    """Processes that make copies in this folder."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            words = path.read_bytes().split(b"\0")
        except OSError:
            continue
        if b"edge_agent.inference.prepared" in words and any(os.fsencode(folder) in word for word in words):
            found.append(int(path.parent.name))
    return found


def wait_for(true: Callable[[], Any]) -> Any:
    deadline = time.monotonic() + 30
    while not (value := true()):
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.002)
    return value


@pytest.mark.parametrize("wait_for_file", ["source.onnx", "graph.onnx", "weights.bin", "manifest.json"])
def test_a_kill_while_a_copy_is_made_leaves_none(
    folder: Path, graph: bytes, tmp_path: Path, wait_for_file: str, logged: Callable[[], list[str]]
) -> None:
    """Wherever it hits; what was begun is cleared away, and the next start makes the copy."""
    (tmp_path / "g.onnx").write_bytes(graph)
    process = opening(folder, tmp_path / "g.onnx")
    wait_for(lambda: list(folder.glob(f"*.making-*/{wait_for_file}")) or process.poll() is not None)
    process.kill()
    process.communicate()
    whole = [copy for copy in copies(folder) if ".making-" not in copy.name]
    prepared = PreparedGraphs(folder)
    if not whole:  # else it was quicker
        assert list(folder.glob("*.tries"))
    assert same(prepared.open(OF, graph), graph)
    wait_for(lambda: not children_of(folder))
    prepared.keep_only(ALL)
    [copy] = copies(folder)
    assert {path.name for path in copy.iterdir()} == {"graph.onnx", "weights.bin", "manifest.json"}
    assert logged() == []


def test_a_copy_whose_making_is_killed_is_tried_twice(
    folder: Path, graph: bytes, tmp_path: Path, logged: Callable[[], list[str]]
) -> None:
    """As a kernel does that is short of memory: its site starts again, and must not come to the same end for ever."""
    (tmp_path / "g.onnx").write_bytes(graph)
    for _ in range(2):
        process = opening(folder, tmp_path / "g.onnx")
        for pid in wait_for(lambda: children_of(folder)):
            os.kill(pid, signal.SIGKILL)
        assert "making a copy ended with -9" not in process.communicate()[0], "the reason is a field, not the message"
        assert process.returncode == 0
    prepared = PreparedGraphs(folder)
    assert same(prepared.open(OF, graph), graph)
    assert logged() == ["model_not_prepared making a copy failed 2 times"]
    assert copies(folder) == []
    prepared.keep_only(ALL)
    assert same(prepared.open(OF, graph), graph)
    assert len(logged()) == 1, "that is remembered"
    newer = PreparedGraphs(folder, {**this_machine(), "onnxruntime": ["1.99.0", ""]})
    assert same(newer.open(OF, graph), graph)
    assert len(copies(folder)) == 1, "a newer version has tries of its own"


def test_a_full_disk_costs_the_copy_and_is_not_counted(folder: Path, graph: bytes, tmp_path: Path) -> None:
    """The kernel refuses what is written beyond a limit, as a full disk does."""
    (tmp_path / "g.onnx").write_bytes(graph)
    for _ in range(3):
        process = opening(folder, tmp_path / "g.onnx", len(graph) // 2)
        said = process.communicate()[0].split()
        assert (process.returncode, said) == (0, ["model_not_prepared", "opened"])
        assert list(folder.iterdir()) == []
    assert same(PreparedGraphs(folder).open(OF, graph), graph)
    assert len(copies(folder)) == 1


def test_no_copy_is_made_where_the_next_bundle_would_find_no_room(
    folder: Path, graph: bytes, monkeypatch: pytest.MonkeyPatch, logged: Callable[[], list[str]]
) -> None:
    free = DISK * len(graph) + RESERVE_BYTES
    usage = shutil.disk_usage(folder.parent)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=free - 1))
    assert same(PreparedGraphs(folder).open(OF, graph), graph)
    assert (len(logged()), list(folder.iterdir())) == (1, [])
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=free))
    PreparedGraphs(folder).open(OF, graph)
    assert len(copies(folder)) == 1


def test_no_copy_is_made_where_memory_is_short(
    folder: Path, graph: bytes, monkeypatch: pytest.MonkeyPatch, logged: Callable[[], list[str]]
) -> None:
    monkeypatch.setattr(prepared_module, "free_memory_bytes", lambda: MEMORY * len(graph) + RESERVE_BYTES - 1)
    assert same(PreparedGraphs(folder).open(OF, graph), graph)
    [line] = logged()
    assert line.startswith("model_not_prepared too little memory is free")
    assert list(folder.iterdir()) == []


def test_free_memory_is_the_machines_or_the_containers(tmp_path: Path) -> None:
    assert 0 < free_memory_bytes() < 2**50
    (tmp_path / "proc").mkdir()
    (tmp_path / "proc" / "meminfo").write_text("MemTotal: 900 kB\nMemFree: 1 kB\nMemAvailable: 500 kB\n")
    assert free_memory_bytes(tmp_path) == 500 * 1024
    group = tmp_path / "sys" / "fs" / "cgroup"
    group.mkdir(parents=True)
    (group / "memory.max").write_text("max\n")
    (group / "memory.current").write_text("300000\n")
    (group / "memory.stat").write_text("anon 200000\nfile 100000\ninactive_file 60000\nactive_file 40000\n")
    assert free_memory_bytes(tmp_path) == 500 * 1024
    (group / "memory.max").write_text("350000\n")
    assert free_memory_bytes(tmp_path) == 150_000


def test_a_folder_that_cannot_be_written_costs_the_copy_and_one_line(
    graph: bytes, tmp_path: Path, logged: Callable[[], list[str]]
) -> None:
    (tmp_path / "file").write_text("in the way")
    (tmp_path / "locked").mkdir(mode=0o500)
    places = [tmp_path / "file" / "prepared", Path("/proc/prepared")]
    if os.geteuid() != 0:  # root may write anywhere
        places.append(tmp_path / "locked")
    for place in places:
        prepared = PreparedGraphs(place)
        assert same(prepared.open(OF, graph), graph)
        [line] = logged()
        assert line.startswith("model_not_prepared")
        prepared.keep_only(ALL)


def test_a_copy_on_a_disk_that_became_read_only_is_still_used(folder: Path, copy: Path, graph: bytes) -> None:
    for path in (*copy.iterdir(), copy, folder):
        path.chmod(path.stat().st_mode & ~0o222)
    try:
        session = PreparedGraphs(folder).open(OF, graph)
        assert str(copy / "weights.bin") in mapped()
        assert same(session, graph)
    finally:
        for path in (folder, copy, *copy.iterdir()):
            path.chmod(0o700)


CONTRACT = Contract(
    name="press",
    version="1",
    task="classification",
    inputs=(TensorSpec("window", ("batch", WIDTH), "float32"),),
    outputs=(TensorSpec("scores", ("batch", 4), "float32"),),
    labels=("a", "b", "c", "d"),
    scores="scores",
    golden_atol=0.001,
)


def bundle_bytes(path: Path, graph: bytes) -> bytes:
    inputs = {"window": normal(8, 6, WIDTH)}
    scores = open_session(graph).run(["scores"], inputs)[0]
    truth = tuple(CONTRACT.labels[i] for i in scores.argmax(axis=1))
    write_bundle(path, contract=CONTRACT, graph=graph, golden=Golden(inputs, {"scores": scores}, truth), card={})
    return path.read_bytes()


@pytest.fixture
def preferred(graph: bytes) -> Providers:
    """A provider beside the CPU's where another starts here."""
    started = tuple(open_session(graph, tuple(ort.get_available_providers())).get_providers())
    return started[-2:]


@pytest.fixture
def spec(tmp_path: Path) -> AgentSpec:
    (tmp_path / "policy.yaml").write_text("policy: p\nversion: 1\nrules:\n  - {name: a, when: 'true'}\n")
    words = {"name": "watch", "policy": "policy.yaml", "bundle": "press.bundle", "source": {"kind": "replay"}}
    return AgentSpec.model_validate(words)


def test_a_release_is_checked_on_the_copy_that_runs(
    tmp_path: Path, folder: Path, graph: bytes, spec: AgentSpec
) -> None:
    bundle_bytes(tmp_path / "press.bundle", graph)
    release, blobs = resolve(1, [spec], tmp_path)
    [brain] = deploy(release, {}, blobs, PreparedGraphs(folder)).brains
    [copy] = copies(folder)
    assert copy.name.startswith(brain.spec.bundle.removeprefix("sha256:"))
    assert str(copy / "weights.bin") in mapped()
    assert brain.model.check_golden().passed


def test_a_copy_that_answers_wrongly_is_distrusted_and_the_release_runs(
    tmp_path: Path,
    folder: Path,
    graph: bytes,
    spec: AgentSpec,
    preferred: Providers,
    logged: Callable[[], list[str]],
) -> None:
    """Every byte of it is as it was made: only the golden check can tell."""
    digest = digest_of(bundle_bytes(tmp_path / "press.bundle", graph))
    release, blobs = resolve(1, [spec], tmp_path)
    prepared = PreparedGraphs(folder, providers=preferred)
    prepared.open(digest, graph)
    [copy] = copies(folder)
    prepared.open(Digest("sha256:" + "cd" * 32), float_graph(seed=50))
    [wrong] = [path for path in copies(folder) if path != copy]
    manifest = wrong / "manifest.json"
    manifest.write_text(manifest.read_text().replace(wrong.name, copy.name))
    shutil.rmtree(copy)
    wrong.rename(copy)
    assert not same(prepared.open(digest, graph), graph)

    [brain] = deploy(release, {}, blobs, prepared).brains
    assert logged() == ["prepared_copy_distrusted"]
    assert brain.model.check_golden().passed
    assert tuple(brain.model._session.get_providers()) == preferred, "without a copy too"
    assert copies(folder) == []
    prepared.keep_only([digest])
    assert deploy(release, {}, blobs, PreparedGraphs(folder, providers=preferred)).brains
    assert logged() == ["model_not_prepared making a copy failed 2 times"]


def test_a_release_whose_model_fails_anyway_is_refused_for_that(
    tmp_path: Path, folder: Path, graph: bytes, spec: AgentSpec
) -> None:
    good = read_bundle(bundle_bytes(tmp_path / "press.bundle", graph))
    golden = Golden(good.golden.inputs, {"scores": good.golden.outputs["scores"][::-1].copy()}, good.golden.truth)
    write_bundle(tmp_path / "press.bundle", contract=CONTRACT, graph=graph, golden=golden, card={})
    release, blobs = resolve(1, [spec], tmp_path)
    prepared = PreparedGraphs(folder)
    with pytest.raises(RejectedError, match="agent 'watch': model press: golden check failed"):
        deploy(release, {}, blobs, prepared)
    prepared.keep_only([])
    assert list(folder.iterdir()) == []


def test_a_model_keeps_nothing_of_its_bundle_in_memory(tmp_path: Path, folder: Path, graph: bytes) -> None:
    data = bundle_bytes(tmp_path / "press.bundle", graph)
    before = sys.getrefcount(data)
    model = Model(read_bundle(data), PreparedGraphs(folder))
    assert sys.getrefcount(data) == before
    assert model.check_golden().passed


def test_a_copy_takes_less_memory_than_its_graph(tmp_path: Path, folder: Path) -> None:
    """What is mapped the kernel may take back; what is not, it may not."""
    # Any copy takes some 4 MB, of 16 layers or of 64: the graph has to be large beside that.
    graph = float_graph(layers=32)
    (tmp_path / "g.onnx").write_bytes(graph)
    PreparedGraphs(folder).open(OF, graph)
    code = textwrap.dedent("""
        import pathlib, sys
        import numpy as np
        from edge_agent.inference.prepared import PreparedGraphs
        from edge_agent.inference.session import open_session
        def anonymous():
            lines = pathlib.Path("/proc/self/smaps_rollup").read_text().splitlines()
            return next(int(line.split()[1]) for line in lines if line.startswith("Anonymous:")) * 1024
        graph = pathlib.Path(sys.argv[2]).read_bytes()
        before = anonymous()
        if sys.argv[1] == "plain":
            session = open_session(graph)
        else:
            session = PreparedGraphs(pathlib.Path(sys.argv[3])).open("sha256:" + "ab" * 32, graph)
        session.run(None, {"window": np.ones((1, 512), np.float32)})
        print(anonymous() - before)
    """)

    def anonymous(how: str) -> int:
        words = [sys.executable, "-c", code, how, str(tmp_path / "g.onnx"), str(folder)]
        return int(subprocess.run(words, capture_output=True, text=True, check=True).stdout)

    assert anonymous("plain") > len(graph) / 2
    assert anonymous("copy") < len(graph) / 4
