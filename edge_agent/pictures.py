"""Picture files as arrays, through Pillow, with a bound on what one may cost. Needs the extra `images`."""

import io

import numpy as np
from numpy.typing import NDArray

from edge_models.errors import ConfigError, RejectedError

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
