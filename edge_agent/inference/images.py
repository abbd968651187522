"""Pictures to a model's input tensor: one way for files, messages and the infer command."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from edge_agent.pictures import decode_picture, require_pillow
from edge_models.contract import Contract
from edge_models.errors import RejectedError
from edge_models.tensors import TensorSpec


def picture(contract: Contract, spec: TensorSpec, came: bytes | NDArray[np.uint8], name: str) -> NDArray[Any]:
    """A picture as a batch of 1: converted, resized, scaled, laid out as the contract says.

    `came` is an encoded file, or ``(height, width, 3) uint8`` RGB. Raises `RejectedError` where it is no picture, too
    large, or this input takes none; `ConfigError` without Pillow.
    """
    image = contract.image
    if image is None or spec is not contract.inputs[0]:
        raise RejectedError(f"input {spec.name!r} of model {contract.name!r} takes no pictures (came {name})")
    require_pillow()
    from PIL import Image  # noqa: PLC0415 - an extra, imported only where pictures are

    try:
        rgb = decode_picture(came) if isinstance(came, bytes) else came
    except RejectedError as error:
        raise RejectedError(f"{name}: {error}") from None
    fitted = Image.fromarray(rgb).convert(image.mode).resize((image.width, image.height), Image.Resampling.BILINEAR)
    channels = np.asarray(fitted).reshape(image.height, image.width, -1)
    scaled = (channels * image.scale).astype(spec.dtype)
    return scaled.transpose(2, 0, 1)[np.newaxis] if image.layout == "NCHW" else scaled[np.newaxis]
