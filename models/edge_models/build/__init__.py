"""The workshop: from a recipe to a measured, quantized bundle. Behind the extra `models`; no site imports it."""

import os

# Before anything imports onnxruntime: its telemetry is on by default.
os.environ["ORT_DISABLE_TELEMETRY"] = "1"
