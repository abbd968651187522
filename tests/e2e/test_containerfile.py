"""k3s/Containerfile, built by podman without a network: builder and base come from Debian, packages from a folder."""

import json
import shutil
import subprocess
import tarfile
from pathlib import Path

import pytest
from backports import zstd
from containers import LOCKED_DOWN, Podman, Workshop, need

ROOT = Path(__file__).parents[2]


def base_layer(image: Path, out: Path) -> Path:
    """The lowest layer of an image as a tar: a base with Python and no shell."""
    with tarfile.open(image) as outer:
        listed = outer.extractfile("manifest.json")
        assert listed is not None
        layer = outer.extractfile(json.loads(listed.read())[0]["Layers"][0])
        assert layer is not None
        out.write_bytes(zstd.decompress(layer.read()))
    return out


@pytest.mark.long
@pytest.mark.timeout(900)
def test_it_builds_an_image_that_runs_and_has_no_shell_and_no_pip(
    workshop: Workshop, podman: Podman, tmp_path: Path
) -> None:
    need("mmdebstrap")
    builder = tmp_path / "builder.tar"
    subprocess.run(
        ["mmdebstrap", "--variant=minbase", "--include=python3,python3-venv", "bookworm", str(builder)],
        check=True, capture_output=True,
    )  # fmt: skip
    podman.run("import", "--quiet", builder, "localhost/builder:1")
    podman.run("import", "--quiet", base_layer(workshop.image("site").path, tmp_path / "base.tar"), "localhost/base:1")
    context = tmp_path / "context"
    shutil.copytree(ROOT / "k3s", context / "k3s")
    shutil.copyfile(ROOT / ".containerignore", context / ".containerignore")
    shutil.copytree(workshop.wheels(), context / "wheels")
    arguments = {
        "BUILDER": "localhost/builder:1",
        "BASE": "localhost/base:1",
        "KIT": "edge-agent-kit",
        "PIP_ARGS": "--no-index --find-links /src/wheels",
    }
    words = [word for name, value in arguments.items() for word in ("--build-arg", f"{name}={value}")]
    podman.run(
        "build",
        "--network",
        "none",
        "--file",
        context / "k3s" / "Containerfile",
        *words,
        "-t",
        "localhost/e:1",
        context,
    )
    once = ("run", "--rm", "--network", "none", *LOCKED_DOWN)
    assert "doctor" in podman.run(*once, "localhost/e:1", "--help")
    assert podman.ends(*once, "--entrypoint", "sh", "localhost/e:1") == 127
    code = "import importlib.util as u, edge_agent.site, onnxruntime, os; print(u.find_spec('pip'), os.getuid())"
    assert podman.run(*once, "--entrypoint", "/opt/edge-agent/bin/python3", "localhost/e:1", "-c", code) == "None 10001"
