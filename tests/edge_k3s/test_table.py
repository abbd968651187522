from pathlib import Path

import pytest

from edge_k3s.table import Row, check_keys, read_table
from edge_models.errors import ConfigError


def table(tmp_path: Path, text: str, encoding: str = "utf-8") -> list[Row]:
    (tmp_path / "sites.csv").write_bytes(text.encode(encoding))
    return read_table(tmp_path / "sites.csv")


TWO = [Row("plant-01", {"kind": "factory", "line": "3a"}), Row("shop-17", {"kind": "shop"})]


@pytest.mark.parametrize(
    "text",
    [
        "site,kind,line\nplant-01,factory,3a\nshop-17,shop,\n",
        "site;kind;line\r\nplant-01;factory;3a\r\nshop-17;shop;\r\n",
        "\ufeffsite\tkind\tline\nplant-01\tfactory\t3a\nshop-17\tshop\n",
        "kind , site,line\n\n# Hamburg\n factory,plant-01 , 3a\n\nshop,shop-17\n,,\n",
        'site,kind,line,\n"plant-01","factory","3a",\nshop-17,shop,,\n',
    ],
)
def test_a_spreadsheets_table(tmp_path: Path, text: str) -> None:
    assert table(tmp_path, text) == TWO


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "is empty: wanted a line with `site`"),
        ("plant-01,factory\n", "line 1: no column is named `site`; there are: plant-01, factory"),
        ("site,kind,kind\na,b,c\n", "line 1: two columns are named 'kind'"),
        ("site,kind of\na,b\n", "line 1: label kind of=x: key 'kind of'"),
        ("site,kind\n", "has a header and no sites"),
        ("site,kind\nplant-01,a\nPlant_02,b\n", "line 3: site 'Plant_02': use 1 to 63 of a-z"),
        ("site,kind\nhub,a\n", "line 2: site id 'hub' is reserved"),
        ("site,kind\nplant-01,a b\n", "line 2: label kind=a b: value 'a b'"),
        ("site,kind\nplant-01,a,c\n", "line 2: 3 cells, where the header has 2"),
        ("site,kind\n,a\n", "line 2: site ''"),
        ("site,kind\nx,a\n\ny,b\nx,c\n", "line 5: site x stands twice"),
        ("site\nA\nB\nC\n", "line 2: site 'A': use 1 to 63"),
    ],
)
def test_a_mistake_is_named_with_its_line(tmp_path: Path, text: str, says: str) -> None:
    with pytest.raises(ConfigError) as caught:
        table(tmp_path, text)
    assert says in str(caught.value)
    assert str(caught.value).count("\n") == 0


def test_how_many_more_are_wrong_is_said(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"\(and 2 more lines are wrong\)"):
        table(tmp_path, "site\nA\nB\nC\nfine\n")


def test_files_that_are_no_text(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="No such file"):
        read_table(tmp_path / "nowhere.csv")
    with pytest.raises(ConfigError, match="save it as CSV UTF-8"):
        table(tmp_path, "site,größe\nx,y\n", "latin-1")


def test_a_key_nobody_uses_is_likelier_mistyped_than_new() -> None:
    check_keys(["kind"], ["line", "kind"])
    check_keys(["anything"], [])
    with pytest.raises(ConfigError, match=r"label key 'knid' is new: did you mean 'kind'\? .*use kind, line"):
        check_keys(["line", "knid"], ["line", "kind"])
