"""A deadline fires once, when it was last set to, and not when it was cleared."""

import asyncio

from edge_agent.api.deadline import Deadline


def test_it_fires_for_the_last_setting_only() -> None:
    async def run() -> list[str]:
        fired: list[str] = []
        done = asyncio.Event()
        deadline = Deadline(asyncio.get_running_loop())
        deadline.set(0.01, lambda: fired.append("first"))
        deadline.set(0.05, lambda: fired.append("later"))
        deadline.set(30, lambda: fired.append("latest"))
        deadline.set(0.02, done.set)
        await asyncio.wait_for(done.wait(), 5)
        fired.append("sooner")
        deadline.set(0.01, lambda: fired.append("cleared"))
        deadline.clear()
        last = asyncio.Event()
        Deadline(asyncio.get_running_loop()).set(0.03, last.set)
        await asyncio.wait_for(last.wait(), 5)
        deadline.close()
        return fired

    assert asyncio.run(run()) == ["sooner"]
