"""A model that a Hugging Face hub knows by its id."""

import logging
from pathlib import Path
from typing import Any

from huggingface_hub import snapshot_download
from huggingface_hub.errors import HfHubHTTPError, HFValidationError
from huggingface_hub.utils import disable_progress_bars

from edge_models.build.importing.found import Found
from edge_models.build.importing.huggingface import from_folder
from edge_models.build.importing.wanted import Wanted
from edge_models.build.recipe import Progress
from edge_models.errors import ConfigError, RetryableError

PARTS = ["*.json", "*.txt", "*.model", "README.md", "*.safetensors"]
"""What is asked for: never code, never the same weights for other frameworks."""

OLD_WEIGHTS = ["*.bin"]
"""Where a model has no safetensors. Read as weights only, so nothing in them runs."""


def from_hub(model_id: str, wanted: Wanted, progress: Progress) -> Found:
    """The model of this id, of the hub that ``HF_ENDPOINT`` names, or of the cache where ``HF_HUB_OFFLINE`` is set.

    Raises `ConfigError` where the hub has no such model for this caller, `RetryableError` where it can't be reached,
    else as `from_folder`.
    """
    progress(f"fetching {model_id}")
    disable_progress_bars()
    logging.getLogger("huggingface_hub").setLevel(logging.ERROR)
    folder = _fetch(model_id, PARTS)
    if not list(folder.rglob("*.safetensors")):
        folder = _fetch(model_id, PARTS + OLD_WEIGHTS)
    # A snapshot's folder is named by its commit.
    return from_folder(folder, wanted, progress, source=model_id, more={"revision": folder.name})


def _fetch(model_id: str, patterns: list[str]) -> Path:
    local = f"a model's folder on this machine is imported by its path; {model_id} is no folder here"
    try:
        found: Any = snapshot_download(model_id, allow_patterns=patterns)
        return Path(found)
    except HFValidationError:
        raise ConfigError(f"{model_id}: no such file or folder, and no hub's id") from None
    except HfHubHTTPError as error:
        status = error.response.status_code if error.response is not None else 0
        if status in (401, 403, 404):
            raise ConfigError(f"{model_id}: the hub has no such model, or not for you ({local})") from None
        said = f"the hub answered {status}" if status else "no hub can be reached, and it was never fetched"
        raise RetryableError(f"{model_id}: {said} ({local})", 60) from None
    except OSError:
        raise RetryableError(f"{model_id}: no hub can be reached ({local})", 60) from None
