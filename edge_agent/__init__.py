"""The site: sources → infer → decide → act → remember, and the uplink that tells the hub."""

import os

# onnxruntime sends telemetry unless told not to before its first import; a site promises to be offline.
os.environ["ORT_DISABLE_TELEMETRY"] = "1"
