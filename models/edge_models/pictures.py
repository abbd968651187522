"""Picture files as arrays and as a model's input, through Pillow, with a bound on what one may cost: extra `images`.

One implementation, where models are built and where they run.
"""

import io
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edge_models.contract import Contract
from edge_models.errors import ConfigError, RejectedError
from edge_models.tensors import ImageSpec, TensorSpec

MAX_PICTURE_BYTES = 16 * 1024 * 1024
"""The largest picture file."""

MAX_PIXELS = 16 * 1024 * 1024
"""The largest picture, width × height: 48 MiB as an array."""

FORMATS = ("JPEG", "PNG", "WEBP", "BMP")
"""What cameras write; Pillow's rarer decoders stay closed to what lies in a folder."""


def require_pillow() -> None:
    """Raise `ConfigError` saying what to install where pictures can't be read."""
    try:
        import PIL.Image  # noqa: F401, PLC0415 - an extra: imported only where pictures are taken
    except ImportError:
        raise ConfigError("pictures need Pillow: pip install 'edge-agent-kit[images]'") from None


def decode_picture(data: bytes) -> NDArray[np.uint8]:
    """The picture as ``(height, width, 3) uint8`` RGB, the way up that its camera says. Raises `RejectedError`."""
    from PIL import Image, ImageOps, UnidentifiedImageError  # noqa: PLC0415 - see `require_pillow`

    if len(data) > MAX_PICTURE_BYTES:
        raise RejectedError(f"{len(data)} bytes, the most is {MAX_PICTURE_BYTES}")
    try:
        with Image.open(io.BytesIO(data), formats=FORMATS) as picture:
            width, height = picture.size
            if width * height > MAX_PIXELS:
                raise RejectedError(f"{width} × {height} pixels, the most is {MAX_PIXELS} in all")
            return np.array(ImageOps.exif_transpose(picture).convert("RGB"), dtype=np.uint8)
    except RejectedError:
        raise
    except UnidentifiedImageError:
        raise RejectedError(f"no picture that can be read ({', '.join(FORMATS)})") from None
    except Exception as error:  # noqa: BLE001 - decoders raise whatever a broken file leads them to
        raise RejectedError(f"no picture that can be read ({', '.join(FORMATS)}): {error}"[:300]) from None


def picture(contract: Contract, spec: TensorSpec, came: bytes | NDArray[np.uint8], name: str) -> NDArray[Any]:
    """A picture as a batch of 1: converted, resized, scaled, laid out as the contract says.

    `came` is an encoded file, or ``(height, width, 3) uint8`` RGB. Raises `RejectedError` where it is no picture, too
    large, or this input takes none; `ConfigError` without Pillow.
    """
    image = contract.image
    if image is None or spec is not contract.inputs[0]:
        raise RejectedError(f"input {spec.name!r} of model {contract.name!r} takes no pictures (came {name})")
    require_pillow()
    from PIL import Image  # noqa: PLC0415 - see `require_pillow`

    try:
        rgb = decode_picture(came) if isinstance(came, bytes) else came
    except RejectedError as error:
        raise RejectedError(f"{name}: {error}") from None
    fitted = _fitted(Image.fromarray(rgb).convert(image.mode), image)
    channels = np.asarray(fitted).reshape(image.height, image.width, -1)
    scaled = (channels * image.scale).astype(spec.dtype)
    return scaled.transpose(2, 0, 1)[np.newaxis] if image.layout == "NCHW" else scaled[np.newaxis]


def _fitted(came: Any, image: ImageSpec) -> Any:
    """The Pillow picture in the size that the contract says."""
    from PIL import Image  # noqa: PLC0415

    size = (image.width, image.height)
    if image.fit == "stretch":
        return came.resize(size, Image.Resampling.BILINEAR)
    ratio = min(image.width / came.width, image.height / came.height)
    inner = (max(1, round(came.width * ratio)), max(1, round(came.height * ratio)))
    padded = Image.new(image.mode, size)
    padded.paste(came.resize(inner, Image.Resampling.BILINEAR))
    return padded
