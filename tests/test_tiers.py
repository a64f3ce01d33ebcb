"""Fast tests start nothing; the tier of a test follows from its markers and fixtures."""

import multiprocessing
import os
import socket
import subprocess
import sys
from types import SimpleNamespace

import pytest
from tiers import tier


def listen():
    with socket.socket() as own:
        own.bind(("127.0.0.1", 0))
        own.listen()


def fork():
    os.fork()  # looked up late: the guard replaces it


STARTS = {
    "subprocess": lambda: subprocess.run([sys.executable, "-c", ""], check=True),
    "process": lambda: multiprocessing.get_context("spawn").Process(target=print).start(),
    "fork": fork,
    "listen": listen,
}


@pytest.mark.parametrize("how", STARTS)
def test_a_fast_test_cannot_start(how):
    with pytest.raises(pytest.fail.Exception, match="mark it `process` or `slow`"):
        STARTS[how]()


@pytest.mark.process
def test_other_tests_can():
    STARTS["subprocess"]()
    listen()


@pytest.mark.parametrize(
    ("markers", "fixtures", "expected"),
    [
        ((), ("tmp_path",), "fast"),
        (("timeout",), ("var",), "fast"),
        (("slow",), (), "slow"),
        ((), ("tiny_run", "trained"), "slow"),
        (("slow",), ("prefect_server",), "process"),
        (("process",), ("trained",), "process"),
    ],
)
def test_the_dearest_of_markers_and_fixtures_decides(markers, fixtures, expected):
    marks = [SimpleNamespace(name=name) for name in markers]
    item = SimpleNamespace(fixturenames=fixtures, iter_markers=lambda: marks)
    assert tier(item) == expected
