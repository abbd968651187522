"""What models run on. Here is no GPU: the choice is made over what this onnxruntime has, and what runs is the CPU."""

import logging
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnxruntime as ort
import pytest
from onnx import TensorProto, helper, numpy_helper
from operator_desk import Operator

from edge_agent.config import load_site
from edge_agent.inference.model import Model
from edge_agent.inference.prepared import MIN_BYTES, PreparedGraphs
from edge_agent.inference.providers import CPU, ONLY_CPU, Providers, choose
from edge_agent.inference.session import open_session
from edge_agent.site import SiteProcess
from edge_models.bundle import Bundle
from edge_models.digests import Digest
from edge_models.errors import ConfigError, RejectedError
from edge_models.shipped import shipped_path
from edge_sync.signing import make_key

HERE = ort.get_available_providers()
CUDA = "CUDAExecutionProvider"
WITH_CUDA = ["TensorrtExecutionProvider", CUDA, CPU]
"""What onnxruntime-gpu is built with."""
OF = Digest("sha256:" + "ab" * 32)
WIDTH = 768


@pytest.fixture(scope="module")
def graph() -> bytes:
    """``x (batch, WIDTH) float32`` → ``y``, large enough to get a prepared copy."""
    weight = np.random.default_rng(1).normal(size=(WIDTH, WIDTH)).astype(np.float32)
    made = helper.make_graph(
        [helper.make_node("MatMul", ["x", "w"], ["y"])],
        "graph",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", WIDTH])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["batch", WIDTH])],
        [numpy_helper.from_array(weight, "w")],
    )
    model = helper.make_model(made, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    data: bytes = model.SerializeToString()
    assert len(data) > MIN_BYTES
    return data


def starts(graph: bytes, name: str) -> bool:
    """Whether this machine has what a provider needs."""
    return name in open_session(graph, (name, CPU)).get_providers()


@pytest.fixture
def other(graph: bytes) -> Providers:
    """A provider beside the CPU's that starts here, preferred to that."""
    for name in HERE:
        if name != CPU and starts(graph, name):
            return (name, CPU)
    pytest.skip(f"of {', '.join(HERE)} only the CPU's starts here")


@pytest.mark.parametrize("name", HERE)
def test_each_that_is_installed_is_chosen_by_its_short_name_or_its_own(name: str) -> None:
    short = name.removesuffix("ExecutionProvider")
    assert choose([short.lower()]) == choose([short.upper()]) == choose([name]) == (name,)


def test_the_order_is_the_sites_and_none_is_chosen_twice() -> None:
    assert choose(["cuda", "cpu"], WITH_CUDA) == (CUDA, CPU)
    assert choose(["cpu", "tensorrt", "CPU"], WITH_CUDA) == (CPU, "TensorrtExecutionProvider")


def test_one_that_is_not_installed_is_refused_and_all_that_are_are_named() -> None:
    with pytest.raises(ConfigError) as refused:
        choose(["cpu", "abacus"])
    said = str(refused.value)
    assert said.startswith("inference.providers: the onnxruntime that is installed here has no 'abacus', it has ")
    assert said.partition(", it has ")[2].split(", ") == sorted(
        name.removesuffix("ExecutionProvider").lower() for name in HERE
    )


@pytest.mark.skipif(CUDA in HERE, reason="this onnxruntime has CUDA")
def test_a_site_that_names_cuda_does_not_start_where_onnxruntime_has_only_the_cpu(tmp_path: Path) -> None:
    site = tmp_path / "site.yaml"
    site.write_text("site: plant-01\napi: null\ninference: {providers: [cuda, cpu]}\n")
    with pytest.raises(ConfigError, match=r"has no 'cuda', it has (.*, )?cpu"):
        SiteProcess(load_site(site))
    assert [path.name for path in tmp_path.iterdir()] == ["site.yaml"], "nothing was begun"


def test_all_that_a_site_runs_and_will_run_is_as_its_file_says(other: Providers, tmp_path: Path) -> None:
    """The release it starts with, and those that its hub sends; no broker is there."""
    root = Operator(tmp_path / "trust", make_key(tmp_path / "online"), make_key(tmp_path / "director")).root_file
    (tmp_path / "policy.yaml").write_text("policy: p\nversion: 1\nrules:\n  - {name: a, when: 'true'}\n")
    (tmp_path / "site.yaml").write_text(
        f"site: plant-01\napi: null\ninference: {{providers: [{', '.join(other)}]}}\nrelease: 1\n"
        f"hub: {{broker: 'mqtt://127.0.0.1:1', root: {root}}}\n"
        f"agents:\n  - {{name: watch, bundle: {shipped_path('trace', '1')}, policy: policy.yaml,"
        " source: {kind: http, port: 0}}\n"
    )
    process = SiteProcess(load_site(tmp_path / "site.yaml"))
    process.start()
    try:
        [name] = process.models.names()
        model = process.models.get(name)
        assert model is not None
        assert tuple(model._session.get_providers()) == other
        assert process.hub is not None
        later = process.hub.updates._updates._switcher._prepared
        assert later is not None
        assert later.providers == other
    finally:
        process.close()


@pytest.mark.parametrize(
    ("text", "problem"), [("[]", "at least 1 item"), ("[cpu, cpu]", "'cpu' stands twice"), ("cpu", "list")]
)
def test_a_site_file_that_names_none_or_one_twice_is_refused(tmp_path: Path, text: str, problem: str) -> None:
    (tmp_path / "site.yaml").write_text(f"site: plant-01\ninference: {{providers: {text}}}\n")
    with pytest.raises(ConfigError, match=rf"inference\.providers.*{problem}"):
        load_site(tmp_path / "site.yaml")


def test_sessions_run_on_what_was_chosen_and_answer_the_same(graph: bytes, other: Providers, bundle: Bundle) -> None:
    x = np.ones((2, WIDTH), np.float32)
    session, plain = open_session(graph, other), open_session(graph)
    assert tuple(session.get_providers()) == other
    assert tuple(plain.get_providers()) == ONLY_CPU
    assert session.run(["y"], {"x": x})[0].tobytes() == plain.run(["y"], {"x": x})[0].tobytes()
    assert Model(bundle, providers=other).check_golden().passed


def test_the_cpu_runs_nothing_where_it_was_not_named(graph: bytes, other: Providers) -> None:
    """The other one here knows no MatMul."""
    with pytest.raises(RejectedError, match="fallback to CPU EP has been explicitly disabled"):
        open_session(graph, other[:1])


@pytest.mark.parametrize("name", [CUDA, "TensorrtExecutionProvider"])
@pytest.mark.filterwarnings("ignore:Specified provider")
def test_one_that_does_not_start_is_passed_over_for_the_cpu_and_told_of(
    graph: bytes, name: str, tmp_path: Path, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    """It does not where its driver is missing, or onnxruntime was built without it: ONNX Runtime then does the same."""
    if starts(graph, name):
        pytest.skip(f"{name} starts here")
    caplog.clear()
    with caplog.at_level(logging.WARNING, logger="edge_agent.inference.session"):
        session = open_session(graph, (name, CPU))
    assert tuple(session.get_providers()) == ONLY_CPU
    [told] = caplog.records
    assert (told.message, told.__dict__["providers"]) == ("provider_not_started", [name])
    with pytest.raises(RejectedError, match=f"{name} (did not start here|alone)"):
        open_session(graph, (name,))
    assert capfd.readouterr().out == ""
    # No copy is made for it, which would be one for the CPU.
    prepared = PreparedGraphs(tmp_path / "prepared", providers=(name, CPU))
    assert tuple(prepared.open(OF, graph).get_providers()) == ONLY_CPU
    assert not [path for path in (tmp_path / "prepared").iterdir() if path.is_dir()]


@pytest.mark.filterwarnings("ignore:Specified provider")
def test_a_graph_that_runs_nowhere_is_refused_whatever_was_chosen(graph: bytes) -> None:
    for providers in (ONLY_CPU, (CUDA, CPU)):
        with pytest.raises(RejectedError, match="the graph cannot be loaded: "):
            open_session(graph[: len(graph) // 2], providers)


def test_prepared_copies_are_apart_for_each_choice(graph: bytes, other: Providers, tmp_path: Path) -> None:
    folder = tmp_path / "prepared"
    plain, others = PreparedGraphs(folder), PreparedGraphs(folder, providers=other)
    names: Callable[[], set[str]] = lambda: {path.name for path in folder.iterdir()}  # noqa: E731
    assert tuple(plain.open(OF, graph).get_providers()) == ONLY_CPU
    ours = names()
    assert tuple(others.open(OF, graph).get_providers()) == other
    assert len(names()) == 2
    [theirs] = names() - ours
    assert tuple(others.open(OF, graph).get_providers()) == other, "the copy's session too"
    # A copy of one choice is none of the other, whatever its name says.
    (folder / theirs).rename(folder / "kept")
    (folder / next(iter(ours))).rename(folder / theirs)
    others.open(OF, graph)
    others.keep_only([OF])
    assert names() == {theirs}
