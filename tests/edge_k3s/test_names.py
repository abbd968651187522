import re
import shutil
import subprocess

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_k3s.names import check_file, check_image, check_labels, check_site, check_time, minor_of, parse_labels
from edge_models.errors import ConfigError

DNS_LABEL = st.from_regex(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?", fullmatch=True)
LABEL_PART = st.from_regex(r"[A-Za-z0-9]([A-Za-z0-9._-]{0,61}[A-Za-z0-9])?", fullmatch=True)


@given(DNS_LABEL)
def test_every_dns_label_is_a_site(site: str) -> None:
    check_site(site)


@given(st.text(max_size=70).filter(lambda t: not re.fullmatch(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?", t)))
def test_anything_else_is_refused_in_one_line(site: str) -> None:
    with pytest.raises(ConfigError, match="site ") as caught:
        check_site(site)
    assert len(str(caught.value).splitlines()) == 1


@pytest.mark.parametrize(
    "site", ["", "Plant-07", "-plant", "plant-", "plant_07", "plant.07", "a" * 64, "plant\n", "../x"]
)
def test_sites_people_mistype(site: str) -> None:
    with pytest.raises(ConfigError):
        check_site(site)


@given(st.dictionaries(LABEL_PART, LABEL_PART, max_size=5))
def test_labels_survive_their_own_syntax(labels: dict[str, str]) -> None:
    assert parse_labels(f"{key}={value}" for key, value in labels.items()) == labels


@pytest.mark.parametrize(
    ("pairs", "says"),
    [
        (["factory"], "label 'factory': write KEY=VALUE"),
        (["line 3=a"], "key 'line 3'"),
        (["kind="], "value ''"),
        (["=factory"], "key ''"),
        (["kind=a=b"], "value 'a=b'"),
        (["kind=fabrik halle"], "value 'fabrik halle'"),
        (["kind=a\n"], r"value 'a\\n'"),
        (["kind=a", "kind=b"], "label 'kind' stands twice"),
    ],
)
def test_a_wrong_label_is_named(pairs: list[str], says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        parse_labels(pairs)


def test_a_label_given_as_a_value_is_checked_too() -> None:
    with pytest.raises(ConfigError, match="key 'a b'"):
        check_labels({"a b": "c"})


@pytest.mark.parametrize(
    "image",
    [
        "edge-agent-kit:0.1.0",
        "edge-agent-kit:0.1.0-0123456789ab",
        "registry.example:5000/team/edge-agent-kit:1",
        "registry.example/edge-agent-kit@sha256:" + "0" * 64,
    ],
)
def test_images_with_a_tag_that_stays(image: str) -> None:
    check_image(image)


@pytest.mark.parametrize(
    "image", ["", "edge-agent-kit", "edge-agent-kit:latest", "a b:1", "registry.example:5000/kit", ":1"]
)
def test_images_that_could_be_anything(image: str) -> None:
    with pytest.raises(ConfigError, match="a tag that never moves"):
        check_image(image)


@pytest.mark.parametrize("text", ["03:00", "Sun 03:00", "Mon..Fri 23:59", "Sat,Sun 00:00", "Mon..Wed,Sun 02:30"])
def test_times_that_systemd_reads(text: str) -> None:
    check_time(text)
    if shutil.which("systemd-analyze"):
        subprocess.run(["systemd-analyze", "calendar", text], check=True, capture_output=True)


@pytest.mark.parametrize("text", ["", "sun 03:00", "Sun", "25:00", "Sun 3:00", "Sun 03:00\nOnBootSec=1", "weekly"])
def test_what_is_no_time(text: str) -> None:
    with pytest.raises(ConfigError, match="write it as in 'Sun 03:00'"):
        check_time(text)


def test_versions_of_k3s() -> None:
    assert minor_of("v1.35.2+k3s1") == 35
    for wrong in ("1.35.2+k3s1", "v1.35.2", "v2.1.1+k3s1", "v1.35.2+k3s1 "):
        with pytest.raises(ConfigError, match="write it whole"):
            minor_of(wrong)
    with pytest.raises(ConfigError, match=r"kits need v1\.32 or newer"):
        minor_of("v1.31.9+k3s1")


@pytest.mark.parametrize("name", ["", ".hidden", "a b.tar", "../x", "a/b", "-rf", "a;b", "ä.tar"])
def test_files_that_a_shell_would_misread(name: str) -> None:
    check_file("k3s-airgap-images-amd64.tar.zst")
    with pytest.raises(ConfigError, match="rename it"):
        check_file(name)
