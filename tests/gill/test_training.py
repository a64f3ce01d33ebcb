"""The loop: schedules, resumption to the bit, refusals."""

import math

import pytest
import torch
from torch import nn

from gill.data_parallel import WorkerGroup, split_rows
from gill.training import (
    NonFiniteLossError,
    Optimization,
    ResumeError,
    Trainer,
    learning_rate,
)


class Noisy(nn.Module):
    """A small network with dropout, so that resumption needs the right random numbers."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.net = nn.Sequential(nn.Linear(4, 8), nn.Dropout(0.5), nn.Linear(8, 1))


def trainer_of(config, **more):
    module = Noisy()

    def split(x):
        return split_rows(len(x), WorkerGroup(), config.accumulate, lambda rows, fraction: x[rows])

    return Trainer(
        module, lambda x: {"loss": module.net(x).square().mean()}, config, split=split, **more
    )


def batches(start):
    while True:
        yield torch.randn(5, 4, generator=torch.Generator().manual_seed(start))
        start += 1


@pytest.mark.parametrize("stop", [1, 3, 7])
def test_a_resumed_run_ends_with_the_same_bits(stop, tmp_path):
    config = Optimization(steps=10, warmup_steps=2, schedule="cosine", accumulate=2)
    whole = trainer_of(config)
    list(whole.run(batches(0)))
    first = trainer_of(config)
    for report in first.run(batches(0)):
        if report.step == stop:
            torch.save(first.state_dict(), tmp_path / "state.pt")
            break
    torch.manual_seed(999)  # another process starts with other random numbers
    second = trainer_of(config)
    second.load_state_dict(torch.load(tmp_path / "state.pt", weights_only=True))
    list(second.run(batches(second.step)))
    for a, b in zip(whole.module.parameters(), second.module.parameters(), strict=True):
        assert torch.equal(a, b)


def test_a_changed_configuration_is_refused_with_the_difference():
    old = trainer_of(Optimization(steps=10)).state_dict()
    with pytest.raises(ResumeError, match=r"learning_rate: 0\.001 then, 0\.5 now"):
        trainer_of(Optimization(steps=10, learning_rate=0.5)).load_state_dict(old)


def test_other_parts_are_refused():
    state = trainer_of(Optimization(steps=3)).state_dict()
    state["module"]["net.9.weight"] = state["module"].pop("net.0.weight")
    with pytest.raises(ResumeError, match=r"net\.0\.weight.*net\.9\.weight"):
        trainer_of(Optimization(steps=3)).load_state_dict(state)


def test_a_loss_that_is_not_finite_stops_before_the_update():
    trainer = trainer_of(Optimization(steps=5))
    before = [p.clone() for p in trainer.module.parameters()]
    with pytest.raises(NonFiniteLossError, match="step 0"):
        list(trainer.run(iter([torch.full((5, 4), math.nan)])))
    assert all(torch.equal(a, b) for a, b in zip(before, trainer.module.parameters(), strict=True))


def test_accumulation_equals_one_large_batch():
    def final(accumulate):
        module = nn.Linear(4, 1)
        nn.init.ones_(module.weight)
        nn.init.zeros_(module.bias)
        trainer = Trainer(
            module,
            lambda x: {"loss": module(x).square().mean()},
            Optimization(steps=1, accumulate=accumulate),
            split=lambda x: split_rows(
                len(x), WorkerGroup(), accumulate, lambda rows, fraction: x[rows]
            ),
        )
        report = next(iter(trainer.run([torch.arange(20.0).view(5, 4)])))
        return torch.cat([module.weight.detach().flatten(), report.losses["loss"][None]])

    torch.testing.assert_close(final(1), final(2))  # parts of 2 and 3 rows
    torch.testing.assert_close(final(1), final(4))  # one of them empty


def test_accumulation_without_a_way_to_split_is_refused():
    with pytest.raises(ValueError, match="accumulate is 3 and nothing splits"):
        Trainer(nn.Linear(2, 1), lambda _: {}, Optimization(steps=1, accumulate=3))


class Named(torch.Tensor):
    """A batch with names for its examples."""

    keys = ("first", "second")


def test_looking_late_still_names_the_step_and_the_examples():
    good, bad = torch.ones(5, 4), torch.full((5, 4), math.nan).as_subclass(Named)
    trainer = trainer_of(Optimization(steps=9), check_every=4)
    with pytest.raises(NonFiniteLossError, match="at step 2") as caught:
        list(trainer.run(iter([good, good, bad, *[good] * 6])))
    assert caught.value.keys == ["first", "second"]
    assert trainer.step == 3  # the fourth update looked, and was not made
    late = trainer_of(Optimization(steps=3), check_every=100)
    with pytest.raises(NonFiniteLossError, match="at step 1"):
        list(late.run(iter([good, bad, good])))


def test_schedules():
    step = Optimization(steps=100, learning_rate=1.0, warmup_steps=10, decay_every=50)
    assert learning_rate(step, 0) == pytest.approx(0.1)
    assert learning_rate(step, 9) == pytest.approx(1.0)
    assert learning_rate(step, 49) == pytest.approx(1.0)
    assert learning_rate(step, 50) == pytest.approx(0.1)
    cosine = Optimization(steps=100, learning_rate=1.0, schedule="cosine")
    assert learning_rate(cosine, 50) == pytest.approx(0.5)
    trapezoid = Optimization(steps=100, learning_rate=1.0, schedule="trapezoid")
    assert learning_rate(trapezoid, 80) == pytest.approx(1.0)
    assert learning_rate(trapezoid, 90) == pytest.approx(0.5)


def test_nothing_to_train_is_an_error():
    with pytest.raises(ValueError, match="nothing to train"):
        Trainer(nn.Linear(2, 2).requires_grad_(False), lambda _: {}, Optimization(steps=1))


def test_unknown_precision_is_an_error():
    with pytest.raises(ValueError, match="'int3'"):
        list(trainer_of(Optimization(steps=1, precision="int3")).run(batches(0)))


def test_some_parameters_learn_at_a_rate_of_their_own():
    module = nn.ModuleDict({"slow": nn.Linear(2, 1), "fast": nn.Linear(2, 1)})
    before = {name: p.detach().clone() for name, p in module.named_parameters()}

    def loss(batch):
        return {"loss": (module["slow"](batch) + module["fast"](batch)).sum()}

    config = Optimization(steps=1, learning_rate=0.1, weight_decay=0.0, gradient_clip=1e9)
    trainer = Trainer(module, loss, config, rates={"slow": 0.25})
    list(trainer.run(iter([torch.ones(3, 2)])))
    # The first step of Adam moves each weight by the learning rate.
    for name, p in module.named_parameters():
        expected = 0.025 if name.startswith("slow") else 0.1
        moved = (before[name] - p.detach()).abs()
        torch.testing.assert_close(moved, torch.full_like(moved, expected), atol=1e-4, rtol=0)


def after(config, gradients, start=(1.0, -2.0), **more):
    """The weights after updates with the given gradients, and what the trainer reported."""
    module = nn.Linear(2, 1, bias=False)
    with torch.no_grad():
        module.weight.copy_(torch.tensor([start]))
    trainer = Trainer(module, lambda g: {"loss": (module.weight[0] * g).sum()}, config, **more)
    reports = list(trainer.run(torch.tensor(gradients)))
    return module.weight.detach()[0], reports


def test_gradients_are_cut_to_a_norm():
    config = Optimization(steps=2, learning_rate=0.1, gradient_clip=1.0, weight_decay=0.0)
    cut, reports = after(config, [[30.0, 40.0], [0.3, 0.4]])
    assert [float(r.gradient_norm) for r in reports] == pytest.approx([50.0, 0.5])
    # The same as gradients that were of norm 1 and 0.5 to begin with, and with no limit.
    free = Optimization(**{**config.model_dump(), "gradient_clip": 1e9})
    torch.testing.assert_close(cut, after(free, [[0.6, 0.8], [0.3, 0.4]])[0])
    uncut = after(free, [[30.0, 40.0], [0.3, 0.4]])[0]
    assert not torch.allclose(cut, uncut, atol=1e-3)


def test_weights_decay_by_the_rate_times_the_setting():
    config = Optimization(steps=2, learning_rate=0.1, weight_decay=0.5)
    found, _ = after(config, [[0.0, 0.0], [0.0, 0.0]])
    torch.testing.assert_close(found, torch.tensor([1.0, -2.0]) * (1 - 0.1 * 0.5) ** 2)


def test_what_follows_an_update_is_called_after_each():
    calls = []
    after(Optimization(steps=3), [[1.0, 0.0]] * 3, after_step=lambda: calls.append(1))
    assert len(calls) == 3


def test_drops_are_counted_from_a_step_by_hand():
    """The released code's first drop is before step 12,007, the paper's before 10,000."""
    sizes = {"steps": 20_000, "warmup_steps": 2000, "decay_every": 10_000}
    paper, released = Optimization(**sizes), Optimization(**sizes, decay_from=2007)
    assert [learning_rate(paper, step) for step in (9_999, 10_000)] == [1e-3, 1e-4]
    assert [learning_rate(released, step) for step in (2_000, 12_006, 12_007)] == [1e-3, 1e-3, 1e-4]
