"""An image in one tar: OCI's layout, and beside it the list by which `podman load` and `docker load` name it.

Sources: OCI image-spec 1.1 (layout, manifest, config); Docker's image specification 1.2 (manifest.json).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from backports import zstd

from edge_k3s.image.tree import Tree, pack
from edge_models import ustar
from edge_models.digests import Digest, digest_of
from edge_models.layout import INDEX, MANIFEST, OCI_LAYOUT, blob_path, describe, dump_json

CONFIG = "application/vnd.oci.image.config.v1+json"
LAYER = "application/vnd.oci.image.layer.v1.tar+zstd"


@dataclass(frozen=True, slots=True)
class Layer:
    """One layer: what it is called in reports, and its bytes."""

    name: str
    blob: bytes = field(repr=False)
    """Compressed."""
    diff_id: Digest
    """Of the tar before compression."""
    tar_bytes: int

    @property
    def digest(self) -> Digest:
        """Of the compressed bytes."""
        return digest_of(self.blob)


@dataclass(frozen=True, slots=True)
class Image:
    """A finished image."""

    reference: str
    """NAME:TAG."""
    digest: Digest
    """Of its manifest: what a registry, podman and containerd know it by."""
    image_id: Digest
    """Of its config, which names the uncompressed layers: what is in it, however it was compressed."""
    archive: bytes = field(repr=False)


def compress(data: bytes, level: int) -> bytes:
    """zstd. The bytes are the same for any number of cores, but for none of another libzstd."""
    parameter = zstd.CompressionParameter
    options: dict[int, int] = {parameter.compression_level: level, parameter.nb_workers: 2, parameter.checksum_flag: 1}
    return zstd.compress(data, options=options)


def make_layer(name: str, tree: Tree, level: int) -> Layer:
    """The layer of a tree."""
    tar = pack(tree)
    return Layer(name, compress(tar, level), digest_of(tar), len(tar))


def make_image(
    name: str, version: str, layers: Sequence[Layer], *, architecture: str, created: str, run: Mapping[str, Any]
) -> Image:
    """The image of these layers, lowest first. `run` is what OCI calls the config's `config`; `created` is RFC 3339.

    Its tag is VERSION and the first twelve digits of its id, so that a tag never means other content.
    """
    config = dump_json(
        {
            "architecture": architecture,
            "os": "linux",
            "created": created,
            "config": dict(run),
            "rootfs": {"type": "layers", "diff_ids": [layer.diff_id for layer in layers]},
            "history": [{"created": created, "created_by": f"edge-agent image build: {each.name}"} for each in layers],
        }
    )
    image_id = digest_of(config)
    tag = f"{version.replace('+', '-')}-{image_id.removeprefix('sha256:')[:12]}"
    blobs = {digest_of(config): config, **{layer.digest: layer.blob for layer in layers}}
    manifest = dump_json(
        {
            "schemaVersion": 2,
            "mediaType": MANIFEST,
            "config": describe(CONFIG, config),
            "layers": [describe(LAYER, layer.blob) for layer in layers],
            "annotations": {"org.opencontainers.image.created": created, "org.opencontainers.image.version": version},
        }
    )
    blobs[digest_of(manifest)] = manifest
    entry = describe(MANIFEST, manifest) | {
        "platform": {"architecture": architecture, "os": "linux"},
        "annotations": {
            # The first is read by podman and skopeo, the second by containerd, which wants it in full.
            "org.opencontainers.image.ref.name": f"{name}:{tag}",
            "io.containerd.image.name": f"{in_full(name)}:{tag}",
        },
    }
    listed = {
        "Config": blob_path(image_id),
        "RepoTags": [f"{name}:{tag}"],
        "Layers": [blob_path(layer.digest) for layer in layers],
    }
    files = {blob_path(digest): data for digest, data in blobs.items()}
    files["oci-layout"] = OCI_LAYOUT
    files["index.json"] = dump_json({"schemaVersion": 2, "mediaType": INDEX, "manifests": [entry]})
    files["manifest.json"] = dump_json([listed])
    return Image(f"{name}:{tag}", digest_of(manifest), image_id, ustar.pack(files))


def in_full(name: str) -> str:
    """An image's name as containerd and Kubernetes read it. Source: distribution's reference grammar."""
    first, slash, _ = name.partition("/")
    if slash and ("." in first or ":" in first or first == "localhost"):
        return name
    return f"docker.io/{name}" if slash else f"docker.io/library/{name}"
