"""One clear line for whatever is wrong with a file that a person wrote."""

from pathlib import Path
from typing import Annotated

import pytest
from pydantic import BaseModel, ConfigDict, Field

from edge_models.errors import ConfigError
from edge_sync.yamlfile import load_yaml, parse_yaml, validate


class Wheel(BaseModel):
    model_config = ConfigDict(extra="forbid")
    size_mm: Annotated[int, Field(gt=0)]


class Cart(BaseModel):
    model_config = ConfigDict(extra="forbid")
    name: str
    wheels: list[Wheel] = []
    spare: Wheel | None = None
    by_side: dict[str, Wheel] = {}


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("nmae: x", "cart.yaml: unknown key 'nmae' (did you mean 'name'?)"),
        ("name: x\nqqq: 1", "cart.yaml: unknown key 'qqq' (known keys: by_side, name, spare, wheels)"),
        ("wheels: []", "cart.yaml: key 'name' is missing"),
        ("name: x\nwheels: [{size_mm: 1}, {siez_mm: 1}]", "unknown key 'wheels.1.siez_mm' (did you mean 'size_mm'?)"),
        ("name: x\nspare: {siez_mm: 1}", "unknown key 'spare.siez_mm' (did you mean 'size_mm'?)"),
        ("name: x\nby_side: {left: {siez_mm: 1}}", "unknown key 'by_side.left.siez_mm' (did you mean 'size_mm'?)"),
        ("name: x\nby_side: {left: {size_mm: 0}}", "by_side.left.size_mm: Input should be greater than 0 (came 0)"),
        ("name: x\nname: y", "cart.yaml: line 2: key 'name' stands twice"),
        ("- x", "cart.yaml: wanted keys and values, found list"),
        ("name: [", "cart.yaml: line 1:"),
        ("name: \x00", "cart.yaml: no YAML"),
        ("name: !!python/object:os.system x", "cart.yaml: line 1:"),
    ],
)
def test_what_is_wrong_is_said_in_one_line(text: str, problem: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse_yaml(text.encode(), Cart, "cart.yaml")
    assert problem in str(caught.value)


def test_a_mapping_is_validated_where_it_stands() -> None:
    assert validate(Cart, {"name": "x"}, "agent 'a'") == Cart(name="x")
    with pytest.raises(ConfigError, match=r"^agent 'a': unknown key 'nam' \(did you mean 'name'\?\)$"):
        validate(Cart, {"nam": "x"}, "agent 'a'")


def test_a_file_is_read_or_named(tmp_path: Path) -> None:
    (tmp_path / "cart.yaml").write_text("name: x\n")
    assert load_yaml(tmp_path / "cart.yaml", Cart).name == "x"
    with pytest.raises(ConfigError, match="No such file or directory"):
        load_yaml(tmp_path / "none.yaml", Cart)
