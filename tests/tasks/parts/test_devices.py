"""Which devices a recipe asks for."""

import torch

from tasks.config.parts import RuntimeConfig
from tasks.parts.devices import device_of, on_each_device, on_own_device


def test_the_first_of_several_is_the_device():
    assert device_of(RuntimeConfig(device="cpu")) == torch.device("cpu")
    assert device_of(RuntimeConfig(device="cuda:1,cuda:0")) == torch.device("cuda", 1)


def test_auto_is_cuda_where_there_is_one(monkeypatch):
    runtime = RuntimeConfig(device="auto")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert device_of(runtime) == torch.device("cpu")
    assert [r.device for r in on_each_device(runtime)] == ["auto"]
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 3)
    assert device_of(runtime) == torch.device("cuda")
    assert [r.device for r in on_each_device(runtime)] == ["cuda:0", "cuda:1", "cuda:2"]


def test_each_device_gets_the_rest_of_the_runtime():
    runtime = RuntimeConfig(device="cuda:0,cuda:2", workers=2)
    both = on_each_device(runtime)
    assert [r.device for r in both] == ["cuda:0", "cuda:2"]
    assert {r.workers for r in both} == {2}


def test_threads_are_set_where_they_are_given():
    before = torch.get_num_threads()
    try:
        device_of(RuntimeConfig(device="cpu", threads=1))
        assert torch.get_num_threads() == 1
    finally:
        torch.set_num_threads(before)


def test_each_worker_has_a_gpu_of_its_own(monkeypatch):
    def devices(named, size):
        runtime = RuntimeConfig(device=named, workers=size)
        return [on_own_device(runtime, rank, size).device for rank in range(size)]

    assert devices("cuda:2,cuda:0", 2) == ["cuda:2", "cuda:0"]
    assert devices("cuda", 2) == ["cuda:0", "cuda:1"]
    assert devices("cuda:1", 1) == ["cuda:1"]
    assert devices("cuda:1,cuda:0", 1) == ["cuda:1,cuda:0"]  # a stage that goes by shard uses both
    assert devices("cpu", 2) == ["cpu", "cpu"]
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert devices("auto", 2) == ["auto", "auto"]
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert devices("auto", 2) == ["cuda:0", "cuda:1"]
