"""Three tiers of tests by marker, and which of them run in the same process.

``fast``    needs no server, no other process and no training: what to run after each change.
``slow``    trains or renders for seconds, or uses a server of this process.
``process`` starts other processes or a Prefect server.

``slow`` and ``process`` are written at tests, or follow from the fixtures that a test uses; all
other tests are fast, and may then start nothing.
"""

from __future__ import annotations

import multiprocessing.process
import os
import socket
import subprocess
from collections.abc import Generator
from typing import Any, NoReturn

import pytest

TIER_OF_FIXTURE = {
    "prefect_server": "process",
    "started_servers": "process",
    "bucket": "process",
    "server": "slow",
    "trained": "slow",
}
# A session's costly fixtures are made once: all tests that use one run in the same process.
SHARED = {"prefect_server": "prefect", "trained": "trained", "started_servers": "servers"}


def tier(item: pytest.Item) -> str:
    """The tier of a test, from its markers and fixtures."""
    fixtures = getattr(item, "fixturenames", ())
    found = {TIER_OF_FIXTURE.get(name) for name in fixtures}
    found |= {mark.name for mark in item.iter_markers()}
    return next((name for name in ("process", "slow") if name in found), "fast")


@pytest.hookimpl(tryfirst=True)  # before the selection by -m
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark each test with its tier, and with the group of tests that share a process with it."""
    for item in items:
        item.add_marker(tier(item))
        fixtures = getattr(item, "fixturenames", ())
        shared = [group for name, group in SHARED.items() if name in fixtures]
        item.add_marker(pytest.mark.xdist_group([*shared, item.nodeid.partition("::")[0]][0]))


def _refuse(*_: Any, **__: Any) -> NoReturn:
    pytest.fail("a fast test starts a process or a server: mark it `process` or `slow`")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item) -> Generator[None, object, object]:
    """Let a fast test, and the fixtures that are made for it, start nothing."""
    with pytest.MonkeyPatch.context() as patch:
        if tier(item) == "fast":
            patch.setattr(subprocess.Popen, "__init__", _refuse)
            patch.setattr(multiprocessing.process.BaseProcess, "start", _refuse)
            patch.setattr(os, "fork", _refuse)
            patch.setattr(socket.socket, "listen", _refuse)
        return (yield)
