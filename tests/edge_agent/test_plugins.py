"""Sources and tools by name: the kit's own, a third party's, and all that can be wrong with one."""

import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from edge_agent.config import Endpoint
from edge_agent.sources.base import SourceContext
from edge_agent.sources.folder import FolderSource
from edge_agent.sources.http import HttpSource
from edge_agent.sources.mqtt import MqttSource
from edge_agent.sources.registry import make_source
from edge_agent.sources.replay import ReplaySource
from edge_agent.tools.alert import Alert
from edge_agent.tools.base import ToolContext
from edge_agent.tools.fact_set import FactSet
from edge_agent.tools.mqtt_publish import MqttPublish
from edge_agent.tools.registry import make_tools
from edge_models.errors import ConfigError
from edge_sync.release import SourceSpec

Install = Callable[..., None]


@pytest.fixture
def source_context(tmp_path: Path) -> SourceContext:
    return SourceContext(
        site="plant-01",
        agent="press",
        base=tmp_path,
        data=tmp_path / "data",
        endpoint=lambda _: Endpoint(url="mqtt://127.0.0.1:1"),
        now_us=lambda: time.time_ns() // 1000,
    )


@pytest.fixture
def tool_context() -> ToolContext:
    return ToolContext(
        site="plant-01",
        endpoint=lambda _: Endpoint(url="mqtt://127.0.0.1:1"),
        set_fact=lambda _fact, _call: None,
        now_us=lambda: time.time_ns() // 1000,
    )


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Install:
    """Installs a package of one module, as pip leaves it on the path: files and their metadata."""

    def put(package: str, code: str, group: str, **entry_points: str) -> None:
        folder = tmp_path / f"site-{package}"
        metadata = folder / f"{package}-1.0.dist-info"
        metadata.mkdir(parents=True)
        (folder / f"{package}.py").write_text(code)
        (metadata / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {package}\nVersion: 1.0\n")
        lines = [f"{name} = {value}" for name, value in entry_points.items()]
        (metadata / "entry_points.txt").write_text("\n".join([f"[{group}]", *lines]) + "\n")
        monkeypatch.syspath_prepend(folder)
        monkeypatch.delitem(sys.modules, package, raising=False)

    return put


@pytest.mark.parametrize(
    ("spec", "kind"),
    [
        ({"kind": "mqtt", "endpoint": "machines", "topic": "t"}, MqttSource),
        ({"kind": "folder", "path": ".", "pattern": "*", "take": "json", "after": "move"}, FolderSource),
        ({"kind": "http", "port": 0}, HttpSource),
        ({"kind": "replay", "file": "a.csv"}, ReplaySource),
    ],
)
def test_the_kits_own_sources_are_there(spec: dict[str, Any], kind: type, source_context: SourceContext) -> None:
    assert isinstance(make_source(SourceSpec(**spec), source_context), kind)


def test_the_kits_own_tools_are_there(tool_context: ToolContext) -> None:
    tools = make_tools(["mqtt.publish", "alert", "fact.set", "alert"], tool_context)
    assert {name: type(tool) for name, tool in tools.items()} == {
        "mqtt.publish": MqttPublish,
        "alert": Alert,
        "fact.set": FactSet,
    }
    assert all(tool.idempotent for tool in tools.values())
    assert {name: tool.lane for name, tool in tools.items()} == {
        "mqtt.publish": "decision",
        "alert": "alarm",
        "fact.set": "decision",
    }
    for tool in tools.values():
        tool.close()
        tool.close()


def test_an_unknown_source_is_named_with_the_nearest(source_context: SourceContext) -> None:
    with pytest.raises(ConfigError) as caught:
        make_source(SourceSpec(kind="mqqt"), source_context)
    assert str(caught.value) == (
        "no source is named 'mqqt' (did you mean 'mqtt'? there are: folder, http, mqtt, replay)"
    )


def test_an_unknown_tool_is_named_with_the_nearest(tool_context: ToolContext) -> None:
    with pytest.raises(ConfigError) as caught:
        make_tools(["alert", "mqtt.publsh"], tool_context)
    assert str(caught.value) == (
        "no tool is named 'mqtt.publsh' (did you mean 'mqtt.publish'? there are: alert, fact.set, mqtt.publish)"
    )


def test_an_unknown_option_is_named_with_agent_and_source(source_context: SourceContext) -> None:
    spec = SourceSpec.model_validate({"kind": "replay", "file": "a.csv", "repaet": True})
    with pytest.raises(ConfigError) as caught:
        make_source(spec, source_context)
    assert str(caught.value) == "agent 'press': source replay: unknown key 'repaet' (did you mean 'repeat'?)"


def test_a_module_that_breaks_is_named(install: Install, tool_context: ToolContext) -> None:
    install("brokenpart", "import nothing_of_that_name\n", "edge_agent.tools", robot="brokenpart:Robot")
    with pytest.raises(ConfigError, match=r"tool 'robot' \(brokenpart:Robot\) can't be loaded: ModuleNotFoundError"):
        make_tools(["robot"], tool_context)


def test_a_class_without_a_method_is_named(install: Install, tool_context: ToolContext) -> None:
    install("halfpart", "class Robot:\n    def run(self): ...\n", "edge_agent.tools", robot="halfpart:Robot")
    with pytest.raises(ConfigError, match=r"tool 'robot' \(halfpart:Robot\) has no method 'close'"):
        make_tools(["robot"], tool_context)


def test_another_package_cannot_take_a_name(install: Install, tool_context: ToolContext) -> None:
    install("shadow", "class Alert: ...\n", "edge_agent.tools", alert="shadow:Alert")
    with pytest.raises(ConfigError, match="two packages offer a tool named 'alert'"):
        make_tools(["alert"], tool_context)
