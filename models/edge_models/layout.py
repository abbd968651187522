"""Named files as an OCI image layout in one tar, with the media types of CNCF's ModelPack.

Sources: OCI image-spec 1.1 (image layout, manifest); ModelPack model-spec 1 (media types, annotations).
Layers are raw, never tarred or compressed, so that two versions share every byte range that did not change.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal

import orjson
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from edge_models import ustar
from edge_models.digests import Digest, digest_of
from edge_models.errors import RejectedError

MANIFEST = "application/vnd.oci.image.manifest.v1+json"
INDEX = "application/vnd.oci.image.index.v1+json"
MODEL = "application/vnd.cncf.model.manifest.v1+json"
MODEL_CONFIG = "application/vnd.cncf.model.config.v1+json"
WEIGHT = "application/vnd.cncf.model.weight.v1.raw"
WEIGHT_CONFIG = "application/vnd.cncf.model.weight.config.v1.raw"
DOC = "application/vnd.cncf.model.doc.v1.raw"
DATASET = "application/vnd.cncf.model.dataset.v1.raw"

FILEPATH = "org.cncf.model.filepath"
"""The annotation that gives a layer its file name."""

MAX_JSON_BYTES = 1024 * 1024
"""Of any JSON document in a bundle."""

OCI_LAYOUT = b'{"imageLayoutVersion":"1.0.0"}'


@dataclass(frozen=True, slots=True)
class Layer:
    """One file of a layout."""

    path: str
    media_type: str
    data: bytes


class _Descriptor(BaseModel):
    model_config = ConfigDict(extra="ignore", frozen=True, strict=True)
    mediaType: str
    digest: Annotated[str, Field(pattern=r"^sha256:[0-9a-f]{64}$")]
    size: Annotated[int, Field(ge=0)]
    annotations: dict[str, str] = {}


class _Manifest(BaseModel):
    model_config = ConfigDict(extra="ignore", frozen=True, strict=True)
    schemaVersion: Literal[2]
    mediaType: Literal["application/vnd.oci.image.manifest.v1+json"]
    artifactType: Literal["application/vnd.cncf.model.manifest.v1+json"]
    config: _Descriptor
    layers: list[_Descriptor]


class _Index(BaseModel):
    model_config = ConfigDict(extra="ignore", frozen=True, strict=True)
    manifests: Annotated[list[_Descriptor], Field(min_length=1, max_length=1)]


def dump_json(value: Any) -> bytes:
    """The one byte form of a JSON value: sorted keys, no spaces."""
    return orjson.dumps(value, option=orjson.OPT_SORT_KEYS)


def load_json(data: bytes | memoryview, what: str) -> Any:
    """The JSON value in `data`. Raises `RejectedError` naming `what`."""
    if len(data) > MAX_JSON_BYTES:
        raise RejectedError(f"{what}: {len(data)} bytes, more than {MAX_JSON_BYTES}")
    try:
        return orjson.loads(data)
    except orjson.JSONDecodeError as error:
        raise RejectedError(f"{what}: not JSON: {error}") from None


def pack(layers: list[Layer], *, descriptor: Mapping[str, str], config: Mapping[str, str]) -> bytes:
    """The tar of these layers. `descriptor` and `config` say what the model is, in ModelPack's words."""
    blobs: dict[str, bytes] = {}
    described = [_describe(blobs, layer.media_type, layer.data, {FILEPATH: layer.path}) for layer in layers]
    model_config = {
        "descriptor": dict(descriptor),
        "config": dict(config),
        "modelfs": {"type": "layers", "diffIds": [layer["digest"] for layer in described]},
    }
    manifest = {
        "schemaVersion": 2,
        "mediaType": MANIFEST,
        "artifactType": MODEL,
        "config": _describe(blobs, MODEL_CONFIG, dump_json(model_config)),
        "layers": described,
    }
    entry = _describe(blobs, MANIFEST, dump_json(manifest))
    return ustar.pack({blob_path(digest): data for digest, data in blobs.items()} | _top(entry))


def unpack(archive: bytes) -> dict[str, memoryview]:
    """File path → content, every size and sha256 verified. A path is a name to look up, never to write to.

    Raises `RejectedError` for any other archive. What the files mean is not looked at here.
    """
    members = ustar.unpack(archive)
    index: _Index = _decode(_Index, _take(members, "index.json"), "index.json")
    entry = index.manifests[0]
    # These two files no digest covers: they must be the bytes that follow from the manifest.
    for name, expected in _top({"mediaType": MANIFEST, "digest": entry.digest, "size": entry.size}).items():
        if _take(members, name) != expected:
            raise RejectedError(f"{name}: not what a bundle must have there")
    manifest: _Manifest = _decode(_Manifest, _verified(members, entry, "the manifest"), "the manifest")
    if manifest.config.mediaType != MODEL_CONFIG:
        raise RejectedError(f"config: media type {manifest.config.mediaType!r} is not a model's")
    load_json(_verified(members, manifest.config, "config"), "config")
    files: dict[str, memoryview] = {}
    for layer in manifest.layers:
        path = layer.annotations.get(FILEPATH)
        if path is None or path in files:
            raise RejectedError(f"the manifest: a layer has no {FILEPATH} of its own")
        files[path] = _verified(members, layer, path)
    named = {blob_path(d.digest) for d in (entry, manifest.config, *manifest.layers)} | {
        "index.json",
        "oci-layout",
    }
    for name in members:
        if name not in named:
            raise RejectedError(f"{name}: the manifest does not name it")
    return files


def describe(media_type: str, data: bytes) -> dict[str, Any]:
    """OCI's descriptor of a blob."""
    return {"mediaType": media_type, "digest": digest_of(data), "size": len(data)}


def blob_path(digest: str) -> str:
    """Where a layout has the blob of this digest."""
    return "blobs/sha256/" + digest.removeprefix("sha256:")


def _describe(
    blobs: dict[str, bytes], media_type: str, data: bytes, annotations: Mapping[str, str] | None = None
) -> dict[str, Any]:
    """The descriptor of `data`, which joins `blobs`."""
    described = describe(media_type, data)
    blobs[described["digest"]] = data
    return described | ({"annotations": dict(annotations)} if annotations else {})


def _top(entry: Mapping[str, Any]) -> dict[str, bytes]:
    """The two files at the top of a layout whose one manifest is `entry`."""
    index = {"schemaVersion": 2, "mediaType": INDEX, "manifests": [{**entry, "artifactType": MODEL}]}
    return {"index.json": dump_json(index), "oci-layout": OCI_LAYOUT}


def _take(members: Mapping[str, memoryview], name: str) -> memoryview:
    if name not in members:
        raise RejectedError(f"{name} is missing")
    return members[name]


def _verified(members: Mapping[str, memoryview], described: _Descriptor, what: str) -> memoryview:
    """The blob a descriptor names, when it is that blob."""
    name = blob_path(described.digest)
    if name not in members:
        raise RejectedError(f"{what}: its blob {described.digest} is missing")
    data = members[name]
    if len(data) != described.size:
        raise RejectedError(f"{what}: {len(data)} bytes, where {described.size} were named")
    if digest_of(data) != Digest(described.digest):
        raise RejectedError(f"{what}: its bytes are not those of {described.digest}")
    return data


def _decode(kind: Any, data: memoryview, what: str) -> Any:
    try:
        return kind.model_validate(load_json(data, what))
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise RejectedError(f"{what}: {where}: {first['msg']}") from None
