"""The image for arm64 on an emulated machine of that kind, whose root is the image's layers and beside them an `/init`.

A whole machine, since under qemu-user onnxruntime crashes, whoever made the image. It takes two minutes on busy cores.
"""

import io
import json
import re
import stat
import subprocess
import tarfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from backports import zstd
from containers import Workshop, cannot, need

from edge_models.bundle import read_bundle

pytestmark = [pytest.mark.long, pytest.mark.timeout(1800)]

ROOT = Path(__file__).parents[2]
BUNDLE = ROOT / "models" / "edge_models" / "data" / "trace-2.bundle"
BOOT_S = 900.0

SITE = """\
site: plant-07
data: /var/lib/edge-agent/data
grants: [alert]
api: null
agents:
  - name: instrument-watch
    bundle: /etc/edge-agent/trace.bundle
    policy: /etc/edge-agent/instrument.yaml
    source: {kind: replay, file: /etc/edge-agent/trace.bundle}
    grants: [alert]
"""

INIT = r"""#!/opt/edge-agent/bin/python3
import ctypes, json, os, sqlite3, subprocess
libc = ctypes.CDLL(None)
for kind, at in ((b"proc", b"/proc"), (b"sysfs", b"/sys"), (b"tmpfs", b"/tmp"), (b"tmpfs", b"/var/lib/edge-agent")):
    os.makedirs(at, exist_ok=True)
    libc.mount(kind, at, kind, 0, None)
os.chmod("/tmp", 0o1777)
os.chown("/var/lib/edge-agent", 10001, 10001)
with open("/environment.json") as file:
    variables = json.load(file)
done = subprocess.run(
    ["edge-agent", "run", "/etc/edge-agent/site.yaml", "--once"],
    user=10001, group=10001, extra_groups=[], env=variables, capture_output=True, text=True,
)
said = {"machine": os.uname().machine, "code": done.returncode, "log": done.stderr[-2000:]}
try:
    db = sqlite3.connect("file:/var/lib/edge-agent/data/memory.db?mode=ro", uri=True)
    said["decisions"] = db.execute("SELECT count(*) FROM journal WHERE kind = 'decision'").fetchone()[0]
    rows = db.execute("SELECT label FROM journal WHERE kind = 'prediction' ORDER BY id")
    said["labels"] = [label for (label,) in rows]
finally:
    print("SAID " + json.dumps(said), flush=True)
    libc.reboot(0x4321FEDC)
"""
"""The first process: runs the site as the image's user, says what came of it, and switches the machine off."""


def kernel(folder: Path) -> Path:
    """Debian's, for this kind of machine; unpacked, and nothing of it run."""
    root = folder / "kernel.tar"
    words = ["mmdebstrap", "--quiet", "--variant=extract", "--architectures=arm64", "--skip=check/qemu"]
    made = subprocess.run(
        [*words, "--include=linux-image-cloud-arm64", "bookworm", root], capture_output=True, text=True, check=False
    )
    if made.returncode != 0:
        cannot(f"there is no kernel for arm64: {made.stderr.splitlines()[-1:]}")
    with tarfile.open(root) as tar:
        name = next(name for name in tar.getnames() if name.startswith("./boot/vmlinuz-"))
        found = tar.extractfile(name)
        assert found is not None
        (folder / "vmlinuz").write_bytes(found.read())
    root.unlink()
    return folder / "vmlinuz"


def blobs(image: Path) -> Iterator[tuple[str, bytes]]:
    """Config and layers of an image, lowest first."""
    with tarfile.open(image) as outer:
        listed = outer.extractfile("manifest.json")
        assert listed is not None
        [about] = json.loads(listed.read())
        for name in (about["Config"], *about["Layers"]):
            blob = outer.extractfile(name)
            assert blob is not None
            yield name, blob.read()


def initramfs(image: Path, files: dict[str, tuple[int, bytes]]) -> bytes:
    """An image's root as the kernel unpacks it, with these files (path → mode and content) beside.

    Source: the kernel's Documentation/driver-api/early-userspace/buffer-format.rst, `newc`.
    """
    out, numbers = io.BytesIO(), iter(range(1, 1_000_000))

    def add(path: str, mode: int, content: bytes = b"", owner: int = 0) -> None:
        name = path.encode() + b"\0"
        fields = (next(numbers), mode, owner, owner, 1, 0, len(content), 0, 0, 0, 0, len(name), 0)
        header = b"070701" + "".join(f"{value:08x}" for value in fields).encode() + name
        out.write(header + bytes(-len(header) % 4) + content + bytes(-len(content) % 4))

    (_, config), *layers = blobs(image)
    for _, layer in layers:
        with tarfile.open(fileobj=io.BytesIO(zstd.decompress(layer))) as tar:
            for member in tar:
                regular = tar.extractfile(member) if member.isreg() else None
                if regular is not None:
                    add(member.name, stat.S_IFREG | member.mode, regular.read(), member.uid)
                elif member.issym():
                    add(member.name, stat.S_IFLNK | 0o777, member.linkname.encode())
                else:
                    add(member.name, stat.S_IFDIR | member.mode, owner=member.uid)
    variables = dict(each.split("=", 1) for each in json.loads(config)["config"]["Env"])
    add("environment.json", stat.S_IFREG | 0o644, json.dumps(variables).encode())
    add("etc/edge-agent", stat.S_IFDIR | 0o755)
    for path, (mode, content) in files.items():
        add(path, stat.S_IFREG | mode, content)
    add("TRAILER!!!", 0)
    return out.getvalue()


def test_the_image_for_arm64_decides_on_an_emulated_machine_of_that_kind(workshop: Workshop, tmp_path: Path) -> None:
    need("qemu-system-aarch64", "mmdebstrap")
    files = {
        "init": (0o755, INIT.encode()),
        "etc/edge-agent/site.yaml": (0o644, SITE.encode()),
        "etc/edge-agent/trace.bundle": (0o644, BUNDLE.read_bytes()),
        "etc/edge-agent/instrument.yaml": (0o644, (ROOT / "examples/policies/instrument.yaml").read_bytes()),
    }
    (tmp_path / "root.cpio").write_bytes(initramfs(workshop.image("site", "linux/arm64").path, files))
    words = [
        "qemu-system-aarch64", "-machine", "virt", "-accel", "tcg,thread=multi", "-cpu", "max", "-smp", "2",
        "-m", "2048", "-nographic", "-no-reboot", "-nic", "none", "-kernel", str(kernel(tmp_path)),
        "-initrd", str(tmp_path / "root.cpio"), "-append", "console=ttyAMA0 quiet panic=-1",
    ]  # fmt: skip
    done = subprocess.run(
        words, stdin=subprocess.DEVNULL, capture_output=True, text=True, errors="replace", timeout=BOOT_S, check=False
    )
    found = re.search(r"^SAID (.*)$", done.stdout, re.MULTILINE)
    assert found, done.stdout[-3000:] + done.stderr
    said = json.loads(found[1])
    assert (said["machine"], said["code"]) == ("aarch64", 0), said
    # It checked the model by its golden samples before it ran; these are what the model says of them, and the truth.
    truth = read_bundle(BUNDLE).golden.truth
    assert said["decisions"] == len(said["labels"]) == len(truth)
    right = sum(label == true for label, true in zip(said["labels"], truth, strict=True))
    assert right >= 0.9 * len(truth), said["labels"]
