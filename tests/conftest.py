"""What every test needs: telemetry off before anything can import onnxruntime."""

import os

os.environ["ORT_DISABLE_TELEMETRY"] = "1"
