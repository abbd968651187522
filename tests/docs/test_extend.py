"""docs/extend.md: its code, metadata and site file are taken from the page, installed and used."""

import re
import sys
import time
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from edge_agent.config import Endpoint, load_site
from edge_agent.records import Malformed, Observation
from edge_agent.sources.base import SourceContext
from edge_agent.sources.registry import make_source
from edge_agent.tools.base import Call, ToolContext
from edge_agent.tools.grants import allowed
from edge_agent.tools.registry import make_tools
from edge_models.errors import ConfigError, RejectedError, RetryableError

PAGE = Path(__file__).parents[2] / "docs" / "extend.md"


def block(language: str) -> str:
    """The page's one code block in `language`."""
    (found,) = re.findall(rf"^```{language}\n(.*?)^```$", PAGE.read_text(), re.MULTILINE | re.DOTALL)
    return str(found)


def now_us() -> int:
    return time.time_ns() // 1000


@pytest.fixture
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The page's package, as an installer leaves it on the path."""
    folder = tmp_path / "site-packages"
    metadata = folder / "shopfloor-1.0.dist-info"
    metadata.mkdir(parents=True)
    (folder / "shopfloor.py").write_text(block("python"))
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: shopfloor\nVersion: 1.0\n")
    groups = tomllib.loads(block("toml"))["project"]["entry-points"]
    (metadata / "entry_points.txt").write_text(
        "".join(
            f"[{group}]\n" + "".join(f"{name} = {value}\n" for name, value in entries.items())
            for group, entries in groups.items()
        )
    )
    monkeypatch.syspath_prepend(folder)
    monkeypatch.delitem(sys.modules, "shopfloor", raising=False)


@pytest.fixture
def site_file(tmp_path: Path) -> Path:
    file = tmp_path / "site.yaml"
    file.write_text(block("yaml"))
    return file


@pytest.fixture
def context(tmp_path: Path) -> SourceContext:
    return SourceContext("plant-01", "oven-watch", tmp_path, tmp_path / "data", no_endpoint, now_us)


def no_endpoint(name: str) -> Endpoint:
    raise ConfigError(f"no endpoint is named {name!r}")


@pytest.mark.usefixtures("installed")
def test_the_pages_sensor_works(tmp_path: Path, site_file: Path, context: SourceContext) -> None:
    spec = load_site(site_file).config.agents[0].source
    thermometer = spec.model_copy(update={"file": "temp", "every_s": 0.01})
    (tmp_path / "temp").write_text("21500\n")
    source = make_source(thermometer, context)
    source.start()
    (seen,) = source.take(10, 10)
    assert isinstance(seen, Observation)
    assert seen.values == {"celsius": 21.5}
    (tmp_path / "temp").write_text("broken")
    (bad,) = source.take(10, 10)
    assert isinstance(bad, Malformed)
    assert bad.excerpt == "broken"
    source.done()
    assert (source.dropped(), source.exhausted()) == (0, False)
    source.close()
    with pytest.raises(ConfigError, match="source thermometer: unknown key 'evry_s'"):
        make_source(spec.model_copy(update={"evry_s": 1}), context)
    with pytest.raises(ConfigError, match="there is no"):
        make_source(spec.model_copy(update={"file": "none"}), context).start()


@pytest.mark.usefixtures("installed")
def test_the_pages_tool_works(tmp_path: Path, site_file: Path) -> None:
    site = load_site(site_file)
    assert allowed("lamp.set", site.config.agents[0].grants, site.config.grants) is None
    lamp = tmp_path / "brightness"
    lamp.write_text("0")
    set_fact: Callable[..., None] = lambda *_: None  # noqa: E731 - what no tool here calls
    context = ToolContext("plant-01", lambda _: Endpoint(url=lamp.as_uri()), set_fact, now_us)
    (tool,) = make_tools(["lamp.set"], context).values()
    call = Call("e:decision:1", "oven-watch", None, now_us() + 10_000_000)
    args: dict[str, Any] = {"endpoint": "red-lamp", "on": True}
    assert tool.run(args, call) == args
    assert lamp.read_text() == "1"
    with pytest.raises(RejectedError, match=r"lamp\.set: on: Input should be a valid boolean"):
        tool.run({"endpoint": "red-lamp", "on": "yes"}, call)
    lamp.unlink()
    lamp.mkdir()
    with pytest.raises(RetryableError, match="Is a directory"):
        tool.run(args, call)
    assert (tool.idempotent, tool.lane) == (True, "decision")
    tool.close()
    assert site.endpoint("red-lamp").url.startswith("file:///")
