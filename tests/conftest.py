"""What every test needs: telemetry off before anything can import onnxruntime; hypothesis that measures no time."""

import os

from hypothesis import settings

os.environ["ORT_DISABLE_TELEMETRY"] = "1"

# No deadline: the machine may be busy. In CI the same examples every time: a new one is found by people, not by chance.
settings.register_profile("house", deadline=None, derandomize=bool(os.environ.get("CI")))
settings.load_profile("house")
