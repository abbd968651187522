"""What a test needs of the machine: skipped where it is not there, failed where CI said that it is."""

import os

import pytest

from edge_hub.broker.mosquitto import find_mosquitto


def mosquitto() -> str:
    """The program."""
    found = find_mosquitto()
    if found is None:
        if os.environ.get("EDGE_TESTS_NEED_MOSQUITTO") == "1":
            pytest.fail("mosquitto is not installed, and EDGE_TESTS_NEED_MOSQUITTO is 1")
        pytest.skip("mosquitto is not installed")
    return found
