"""Checkpoints, resumption, choice by validation and losses that are not finite, on a small net."""

import json
import math
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from gill.training import NonFiniteLossError, Optimization, ResumeError, Trainer
from tasks.config.training import TrainingConfig
from tasks.tracking.stage_log import ConsoleLog
from tasks.training.checkpoints import Checkpoints, Selection
from tasks.training.loop import TrainingLoop, finish

# Held-out losses after steps 2, 4, ... : best at step 6, nothing better for three validations.
HELD_OUT = {2: 5.0, 4: 3.0, 6: 1.0, 8: 2.0, 10: 2.0, 12: 2.0}


class KilledError(Exception):
    """Stands for the end of the process."""


def config_of(**changes):
    settings = {
        "steps": 12, "batch_size": 4, "warmup_steps": 2, "schedule": "cosine", "log_every": 3,
        "precision": "float32", "checkpoint_every": 3, "validate_every": 2,
    }  # fmt: skip
    return TrainingConfig(**{**settings, **changes})


def run(folder, config, killed_at=None, bad=None, log=None, seen=None):
    """Train a net with dropout in a fresh 'process'; returns the trainer."""
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(4, 8), nn.Dropout(0.5), nn.Linear(8, 1))
    trainer = Trainer(net, lambda b: {"loss": net(b.x).square().mean()}, Optimization.of(config))
    torch.manual_seed(torch.seed() % 2**31)  # another process has other random numbers

    def batches(start):
        while True:
            if start == killed_at:
                raise KilledError
            x = torch.randn(4, 4, generator=torch.Generator().manual_seed(start))
            keys = tuple(f"{start}-{row}" for row in range(4))
            yield Batch(x * math.nan if start == bad else x, keys)
            start += 1

    def validate():
        if seen is not None:
            seen[trainer.step] = weights(trainer)
        return {"loss": HELD_OUT[trainer.step]}

    loop = TrainingLoop(trainer, config, folder, log or ConsoleLog(), validate=validate)
    loop.run(batches)
    return trainer


class Batch(SimpleNamespace):
    def __init__(self, x, keys):
        super().__init__(x=x, keys=keys)

    def __len__(self):
        return len(self.x)


def weights(trainer):
    return torch.cat([p.detach().flatten() for p in trainer.module.parameters()])


def test_killed_at_any_step_and_resumed_is_equal_to_the_bit(tmp_path):
    for choice in ({}, {"keep_best": True}, {"keep_best": True, "early_stopping": 2}):
        config = config_of(**choice)
        (tmp_path / "whole").mkdir(exist_ok=True)
        for old in (tmp_path / "whole").iterdir():
            old.unlink()
        expected = weights(run(tmp_path / "whole", config))
        for killed_at in range(12):
            folder = tmp_path / f"{len(choice)}-{killed_at}"
            folder.mkdir()
            try:
                run(folder, config, killed_at)
            except KilledError:
                assert killed_at < 10 or not config.early_stopping
            assert torch.equal(weights(run(folder, config)), expected), (choice, killed_at)


def test_the_best_validation_is_what_is_kept(tmp_path):
    seen = {}
    kept = run(tmp_path, config_of(keep_best=True), seen=seen)
    assert kept.step == 12
    assert torch.equal(weights(kept), seen[6])
    assert not torch.equal(weights(kept), seen[12])


def test_early_stopping_stops_where_patience_ends(tmp_path):
    log = ConsoleLog()
    trainer = run(tmp_path, config_of(early_stopping=2), log=log)
    assert trainer.step == 10
    seen = [step for step, values in log.history if "validation_loss" in values]
    assert seen == [2, 4, 6, 8, 10]


def test_the_last_checkpoints_are_kept_and_removed_at_the_end(tmp_path):
    config = config_of(keep_checkpoints=2, keep_best=True)
    run(tmp_path, config)
    found = sorted(p.name for p in tmp_path.iterdir())
    assert found == ["best.pt", "checkpoint-00000009.pt", "checkpoint-00000012.pt"]
    finish(tmp_path)
    assert not list(tmp_path.iterdir())


def test_checkpoints_by_the_clock(tmp_path):
    config = config_of(checkpoint_every=1000, checkpoint_minutes=1e-9, keep_checkpoints=99)
    run(tmp_path, config)
    assert len(list(tmp_path.glob("checkpoint-*.pt"))) == 12


def test_a_damaged_checkpoint_leaves_the_one_before(tmp_path, caplog):
    config = config_of()
    (tmp_path / "whole").mkdir()
    expected = weights(run(tmp_path / "whole", config))
    with pytest.raises(KilledError):
        run(tmp_path, config, killed_at=8)
    newest = tmp_path / "checkpoint-00000006.pt"
    newest.write_bytes(newest.read_bytes()[:500])
    assert torch.equal(weights(run(tmp_path, config)), expected)
    assert "checkpoint-00000006.pt, going on from the one before" in caplog.text


def test_other_settings_are_refused_with_the_difference(tmp_path):
    with pytest.raises(KilledError):
        run(tmp_path, config_of(), killed_at=5)
    with pytest.raises(ResumeError, match=r"batch_size: 4 then, 5 now.*Set them back"):
        run(tmp_path, config_of(batch_size=5))
    run(tmp_path, config_of(log_every=1))  # this has no fingerprint_fields on the result


def test_a_loss_that_is_not_finite_saves_the_keys_of_its_batch(tmp_path):
    with pytest.raises(NonFiniteLossError, match=r"step 7.*4 examples are in .*not_finite\.json"):
        run(tmp_path, config_of(), bad=7)
    saved = json.loads((tmp_path / "not_finite.json").read_text())
    assert saved["step"] == 7
    assert saved["keys"] == ["7-0", "7-1", "7-2", "7-3"]
    newest = Checkpoints(tmp_path, "", 2, {}).paths()[0]
    state = torch.load(newest, weights_only=True)
    assert state["trainer"]["step"] == 6
    assert all(torch.isfinite(v).all() for v in state["trainer"]["module"].values())


def test_a_held_out_loss_that_is_not_finite_stops(tmp_path, monkeypatch):
    monkeypatch.setitem(HELD_OUT, 4, math.nan)
    with pytest.raises(NonFiniteLossError, match=r"step 4.*validation_loss"):
        run(tmp_path, config_of())


def test_the_state_holds_what_validation_found(tmp_path):
    run(tmp_path, config_of(keep_best=True))
    state = torch.load(tmp_path / "checkpoint-00000012.pt", weights_only=True)
    assert Selection(**state["selection"]) == Selection(best=1.0, best_step=6, waited=3)
