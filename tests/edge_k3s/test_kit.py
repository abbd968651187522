import base64
import dataclasses
import os
import shutil
import stat
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from edge_agent.config import load_site
from edge_k3s.kit import write_kit
from edge_k3s.rendering import SECRETS_FILE
from edge_k3s.spec import Account, KitSpec
from edge_k3s.tree import check_out
from edge_models.errors import ConfigError

GOLDEN = Path(__file__).parent / "golden"


def contents(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def without_secrets(data: bytes, spec: KitSpec) -> bytes:
    for name, secret in spec.secrets.items():
        data = data.replace(secret.encode(), f"<{name}>".encode())
        data = data.replace(base64.b64encode(secret.encode()), f"<{name} in base64>".encode())
    return data


def hold_against_golden(kit: Path, spec: KitSpec) -> None:
    """After a change that is meant: EDGE_UPDATE_GOLDEN=1 writes the golden files anew; read their diff."""
    golden = GOLDEN / spec.site
    made = {path: without_secrets(data, spec) for path, data in contents(kit).items()}
    del made["install.sh"]  # is a file of the package, as it is
    made = {path: data.hex().encode() if path.endswith(".sig") else data for path, data in made.items()}
    if os.environ.get("EDGE_UPDATE_GOLDEN"):
        shutil.rmtree(golden, ignore_errors=True)
        for path, data in made.items():
            (golden / path).parent.mkdir(parents=True, exist_ok=True)
            (golden / path).write_bytes(data)
    assert {path: data.decode() for path, data in made.items()} == {
        path: data.decode() for path, data in contents(golden).items()
    }


def test_the_whole_kit_is_the_golden_one(spec: KitSpec, kit: Path) -> None:
    hold_against_golden(kit, spec)


def test_a_kit_that_brings_all_is_the_golden_one(joining: KitSpec, full_kit: Path) -> None:
    hold_against_golden(full_kit, joining)


def test_the_same_spec_gives_the_same_bytes(spec: KitSpec, kit: Path, tmp_path: Path) -> None:
    write_kit(dataclasses.replace(spec, labels=dict(reversed(list(spec.labels.items())))), tmp_path / "again")
    assert contents(kit) == contents(tmp_path / "again")


def test_the_summary_tells_what_was_written(spec: KitSpec, tmp_path: Path) -> None:
    summary = write_kit(spec, tmp_path / "kits" / "plant-07")
    found = contents(tmp_path / "kits" / "plant-07")
    assert (summary.files, summary.size_bytes) == (len(found), sum(map(len, found.values())))
    assert summary.agents == ("press-guard", "door-watch")
    assert summary.warnings == ()


def test_the_site_can_run_from_the_folder(spec: KitSpec, kit: Path) -> None:
    site = load_site(kit / "site.yaml")
    config = site.config
    assert (config.site, config.labels, config.release) == (spec.site, spec.labels, spec.release)
    assert site.data == kit / "data"
    assert site.broker().url == spec.hub.url
    password_file = site.broker().password_file
    assert password_file is not None
    assert password_file.read_text() == spec.hub.password
    for name in ("sensors", "machines"):
        endpoint = site.endpoint(name)
        assert (endpoint.url, endpoint.username) == (spec.local.url, "_local_plant-07")
        assert endpoint.password_file is not None
        assert endpoint.password_file.read_text() == spec.local.password
    for agent, made in zip(config.agents, spec.agents, strict=True):
        assert (kit / agent.bundle).read_bytes() == made.bundle
        assert (kit / agent.policy).read_bytes() == made.policy
        assert agent.model_dump(exclude_unset=True).items() >= made.settings.items()
    assert config.grants == ["alert", "fact.set", "mqtt.publish"]
    assert config.api is not None
    assert (config.api.host, config.api.port, config.api.token_file) == ("127.0.0.1", 8080, None)


def test_sha256sum_agrees_and_covers_every_file(kit: Path) -> None:
    subprocess.run(["sha256sum", "--check", "--strict", "--quiet", "SHA256SUMS"], cwd=kit, check=True)
    named = [line.split("  ", 1)[1] for line in (kit / "SHA256SUMS").read_text().splitlines()]
    assert named == sorted(named)
    assert set(named) == set(contents(kit)) - {"SHA256SUMS"}


def test_sha256sum_notices_one_changed_byte(kit: Path) -> None:
    bundle = kit / "release" / "press-guard.bundle"
    bundle.write_bytes(b"T" + bundle.read_bytes()[1:])
    done = subprocess.run(["sha256sum", "--check", "SHA256SUMS"], cwd=kit, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "release/press-guard.bundle: FAILED" in done.stdout


@pytest.mark.skipif(shutil.which("openssl") is None, reason="openssl is not installed")
def test_what_the_technician_types_first_covers_what_runs_next(full_kit: Path) -> None:
    (full_kit / "operator.pem").write_bytes((full_kit / "signing-key.pem").read_bytes())
    lines = iter((full_kit / "README.txt").read_text().splitlines())
    typed = next(line for line in lines if "openssl pkeyutl" in line)
    while typed.endswith("\\"):
        typed += "\n" + next(lines)

    def said() -> tuple[int, str]:
        done = subprocess.run(["sh", "-c", typed], cwd=full_kit, capture_output=True, text=True, check=False)
        return done.returncode, done.stdout + done.stderr

    assert said() == (0, "Signature Verified Successfully\n")
    with (full_kit / "install.sh").open("a") as script:
        script.write("# and what a stranger wants\n")
    code, text = said()
    assert code != 0
    assert "install.sh: FAILED" in text


def test_secrets_are_in_secrets_and_in_the_secret_only(spec: KitSpec, kit: Path) -> None:
    for path, data in contents(kit).items():
        for name, secret in spec.secrets.items():
            shown = secret.encode() in data or base64.b64encode(secret.encode()) in data
            assert shown == (path in (f"secrets/{name}", f"manifests/{SECRETS_FILE}")), path
    assert not any(secret in repr(spec) for secret in spec.secrets.values())


@pytest.fixture(params=[0o000, 0o022, 0o077])
def umask(request: pytest.FixtureRequest) -> Iterator[None]:
    before = os.umask(request.param)
    yield
    os.umask(before)


@pytest.mark.usefixtures("umask")
def test_only_the_owner_reads_secrets_whatever_the_umask(spec: KitSpec, tmp_path: Path) -> None:
    write_kit(spec, tmp_path / "kit")
    for path in (tmp_path / "kit", *(tmp_path / "kit").rglob("*")):
        name = path.relative_to(tmp_path / "kit").as_posix()
        closed = name.startswith("secrets") or name == f"manifests/{SECRETS_FILE}"
        mode = stat.S_IMODE(path.stat().st_mode)
        if name == "install.sh":
            assert mode == 0o755
            continue
        assert mode == ((0o700 if closed else 0o755) if path.is_dir() else (0o600 if closed else 0o644)), name


def test_an_empty_folder_becomes_the_kit(spec: KitSpec, tmp_path: Path) -> None:
    (tmp_path / "kit").mkdir()
    write_kit(spec, tmp_path / "kit")
    assert (tmp_path / "kit" / "site.yaml").is_file()


@pytest.mark.parametrize("taken", ["folder", "file", "link"])
def test_what_is_there_stays(spec: KitSpec, tmp_path: Path, taken: str) -> None:
    out = tmp_path / "kit"
    if taken == "folder":
        out.mkdir()
        (out / "note.txt").write_text("mine")
    elif taken == "file":
        out.write_text("mine")
    else:
        out.symlink_to(tmp_path / "nowhere")
    before = sorted(tmp_path.rglob("*"))
    for attempt in (lambda: write_kit(spec, out), lambda: check_out(out)):
        with pytest.raises(ConfigError, match="something is there already"):
            attempt()
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize(
    "wrong",
    [
        {"site": "Plant 07"},
        {"labels": {"line 3": "a"}},
        {"image": "edge-agent-kit:latest"},
        {"hub_networks": ("hub.example",)},
    ],
)
def test_a_wrong_name_leaves_nothing(spec: KitSpec, tmp_path: Path, wrong: dict[str, object]) -> None:
    with pytest.raises(ConfigError):
        write_kit(dataclasses.replace(spec, **wrong), tmp_path / "kits" / "plant-07")  # type: ignore[arg-type]
    assert list(tmp_path.iterdir()) == []


def test_a_failure_in_the_middle_leaves_nothing(spec: KitSpec, tmp_path: Path) -> None:
    """A name that no file can have makes the write fail after others were written."""
    agent = dataclasses.replace(spec.agents[0], name="a" * 300)
    with pytest.raises(ConfigError, match="File name too long"):
        write_kit(dataclasses.replace(spec, agents=(*spec.agents, agent)), tmp_path / "plant-07")
    assert list(tmp_path.iterdir()) == []


def test_a_parent_that_is_a_file(spec: KitSpec, tmp_path: Path) -> None:
    (tmp_path / "kits").write_text("")
    with pytest.raises(ConfigError, match=r"kit .*plant-07: "):
        write_kit(spec, tmp_path / "kits" / "plant-07")


def at(host: str) -> Account:
    return Account(f"mqtts://{host}", host, 8883, "plant-07", "x")


@pytest.mark.parametrize(
    ("changed", "says"),
    [
        ({"agents": ()}, "no agent of release 3"),
        ({"hub": at("127.0.0.1"), "local": at("127.0.0.1")}, "a pod would find no broker"),
        ({"local": at("localhost")}, "mqtts://localhost is this machine"),
        ({"hub": at("203.0.113.5"), "local": at("203.0.113.5")}, "offline, the site would see nothing"),
        ({"hub_networks": ()}, "may reach port 8883 of any address"),
    ],
)
def test_what_to_mind_is_said(spec: KitSpec, tmp_path: Path, changed: dict[str, object], says: str) -> None:
    summary = write_kit(dataclasses.replace(spec, **changed), tmp_path / "kit")  # type: ignore[arg-type]
    assert len(summary.warnings) == 1
    assert says in summary.warnings[0]


def test_the_technicians_page_is_one_page_and_names_the_site(spec: KitSpec, kit: Path) -> None:
    lines = (kit / "README.txt").read_text("utf-8").splitlines()
    assert len(lines) <= 66
    assert max(map(len, lines)) <= 118
    assert lines[0] == f"SITE {spec.site}"
    assert any(spec.image in line for line in lines)


def test_the_page_of_a_kit_that_brings_no_k3s_says_so(kit: Path, full_kit: Path) -> None:
    without, brings = ((each / "README.txt").read_text().replace("\n  ", " ") for each in (kit, full_kit))
    assert "k3s does not come with this kit, and nothing here fetches it" in without
    assert "k3s comes with this kit." in brings


def test_the_page_says_what_a_key_is_for_where_the_kit_is_signed(kit: Path, full_kit: Path) -> None:
    signed, unsigned = ((each / "README.txt").read_text() for each in (full_kit, kit))
    assert ("sudo sh install.sh --key KEY" in signed, "This kit is not signed" in signed) == (True, False)
    assert ("--key" in unsigned, "This kit is not signed" in unsigned) == (False, True)
