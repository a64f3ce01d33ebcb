"""Peak memory of a stage, with that of the processes it starts."""

import subprocess
import sys

import numpy as np
import pytest
import torch

from tasks.tracking import memory
from tasks.tracking.memory import peak_gpu_memory, peak_memory, release_memory

MIB = 1 << 20


def test_the_peak_is_seen_although_it_is_freed_before_the_end():
    with peak_memory() as found:
        pass
    quiet = found["peak_memory_bytes"]
    assert quiet > 50 * MIB
    with peak_memory() as found:
        held = np.ones(400 * MIB, np.uint8)  # written, so that it is resident
        assert held[-1]
    assert found["peak_memory_bytes"] > quiet + 300 * MIB


def test_it_is_said_also_where_a_stage_fails():
    with pytest.raises(RuntimeError, match="stage"), peak_memory() as found:
        raise RuntimeError("stage")
    assert found["peak_memory_bytes"] > 0


@pytest.mark.process
def test_processes_that_a_stage_starts_count():
    with peak_memory() as found:
        pass
    alone = found["peak_memory_bytes"]
    program = f"held = bytearray(b'x' * {200 * MIB}); print(flush=True); input()"
    with peak_memory() as found:
        child = subprocess.Popen(
            [sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
        child.stdout.readline()
    child.communicate(b"\n")
    assert found["peak_memory_bytes"] > alone + 150 * MIB


@pytest.mark.process  # ctypes asks the linker where the C library is
def test_giving_back_leaves_what_is_in_use():
    kept = np.arange(1000)
    release_memory()
    assert kept.sum() == 499_500


def test_the_peak_of_a_gpu_is_that_of_the_fullest_since_the_stage_began(monkeypatch):
    held, anew = [700, 900], []
    monkeypatch.setattr(torch.cuda, "is_initialized", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "max_memory_reserved", held.__getitem__)
    monkeypatch.setattr(torch.cuda, "reset_peak_memory_stats", anew.append)
    with peak_memory() as found:
        held[0] = 1000
    assert found[memory.GPU] == 1000
    assert anew == [0, 1]


def test_who_used_no_gpu_reports_none():
    assert peak_gpu_memory() == 0
    with peak_memory() as found:
        pass
    assert memory.GPU not in found
