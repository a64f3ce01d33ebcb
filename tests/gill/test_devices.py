"""A training step keeps a GPU busy: it reads nothing back, and copies wait for nothing.

The meta device stands in for a GPU: its tensors hold no values, so that whatever reads one raises.
"""

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from gill.backbones.testing.micro_models import language_model
from gill.batches import AdapterBatch
from gill.devices import sent
from gill.losses import LossWeights
from gill.mapper import MapperSize, new_mapper
from gill.model import Adapters, GillModel
from gill.specs import AdapterSpec

FAR = torch.device("meta")


class WaitingCopies(TorchDispatchMode):
    """Shapes of what is copied from the CPU to the device so that the CPU waits."""

    def __init__(self):
        super().__init__()
        self.found = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        if func is torch.ops.aten._to_copy.default:
            (values,) = args
            away = values.device.type == "cpu" and kwargs.get("device") == FAR
            if away and not kwargs.get("non_blocking"):
                self.found.append(tuple(values.shape))
        return func(*args, **kwargs)


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("form", ["paper", "released"])
def test_a_step_of_all_losses_reads_nothing_back_and_waits_for_no_copy(packed, form):
    language = language_model()
    spec = AdapterSpec(
        num_img_tokens=2, num_visual_tokens=2, retrieval_dim=8, vision_dim=6, llm_dim=language.dim
    )
    adapters = Adapters(spec, language)
    mapper = new_mapper(language.dim, 2, 3, 5, MapperSize(hidden_dim=8, heads=2, layers=1))
    for module in (language, adapters, mapper):
        module.to(FAR)
    model = GillModel(language, adapters)
    captions = model.tokenize(["a cat", "two dogs on the grass", "a red bird in the snow"])
    features = torch.empty(3, 6, device=FAR)
    batch = AdapterBatch(captions, features, torch.zeros(3, 3, 5), packed=packed)
    with WaitingCopies() as copies:
        losses = model.losses(batch, LossWeights(img_prediction_form=form), 0.0, mapper)
        losses["loss"].backward()
        torch.nn.utils.clip_grad_norm_(adapters.parameters(), 1.0)
        adapters.img_tokens.rescale()
    assert adapters.img_tokens.weight.grad is not None
    assert copies.found == []


def test_a_copy_that_waits_is_seen():
    with WaitingCopies() as copies:
        torch.zeros(2).to(FAR)
    assert copies.found == [(2,)]


def test_values_arrive_as_they_are():
    values = torch.arange(3)
    assert sent(values, torch.device("cpu")) is values
    assert sent(values, FAR).device == FAR
    assert sent(torch.empty(2, device=FAR), FAR).shape == (2,)


def test_a_gpu_gets_them_through_pinned_memory(monkeypatch):
    calls = []
    monkeypatch.setattr(torch.Tensor, "pin_memory", lambda own: calls.append("pinned") or own)
    monkeypatch.setattr(torch.Tensor, "to", lambda own, *a, **named: calls.append((*a, named)))
    sent(torch.zeros(1), torch.device("cuda", 1))
    assert calls == ["pinned", (torch.device("cuda", 1), {"non_blocking": True})]
