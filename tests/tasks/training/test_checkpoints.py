"""Checkpoints: the last few are kept, damaged ones passed over, other settings refused."""

import math

import pytest
import torch
from torch import nn

from gill.training import Optimization, ResumeError, Trainer
from tasks.training.checkpoints import Checkpoints, Selection, restore, save_checkpoint


def trainer_at(step, value=1.0):
    module = nn.Linear(2, 1)
    nn.init.constant_(module.weight, value)
    trainer = Trainer(module, lambda _: {}, Optimization(steps=99))
    trainer.step = step
    return trainer


def kept(folder, prefix="", keep=2, **settings):
    return Checkpoints(folder, prefix, keep, settings)


def test_the_last_few_are_kept_newest_first(tmp_path):
    checkpoints = kept(tmp_path, keep=2)
    for step in (9, 10, 200):
        checkpoints.save(trainer_at(step), Selection())
    assert [p.name for p in checkpoints.paths()] == [
        "checkpoint-00000200.pt", "checkpoint-00000010.pt",
    ]  # fmt: skip


def test_trainings_in_one_folder_keep_apart(tmp_path):
    """Refinement trains in the adapters' folder: neither may take or delete the other's."""
    own, refine = kept(tmp_path, keep=1), kept(tmp_path, "refine_", keep=1)
    own.save(trainer_at(7), Selection())
    refine.save(trainer_at(3), Selection())
    for checkpoints, step in ((own, 7), (refine, 3)):
        found = trainer_at(0)
        checkpoints.restore(found)
        assert found.step == step


def test_step_weights_and_choice_come_back(tmp_path):
    checkpoints = kept(tmp_path)
    checkpoints.save(trainer_at(5, value=3.0), Selection(0.25, 4, 1))
    found = trainer_at(0)
    assert checkpoints.restore(found) == Selection(best=0.25, best_step=4, waited=1)
    assert found.step == 5
    assert float(found.module.weight[0, 0]) == 3.0


def test_nothing_to_go_on_from_is_a_beginning(tmp_path):
    trainer = trainer_at(0)
    assert kept(tmp_path).restore(trainer) == Selection(math.inf, 0, 0)
    assert (trainer.step, restore(tmp_path / "none.pt", trainer)) == (0, 0)


@pytest.mark.parametrize("damage", [b"", b"not a checkpoint", None])
def test_a_damaged_one_is_passed_over_and_named(tmp_path, caplog, damage):
    checkpoints = kept(tmp_path, keep=9)
    for step in (5, 6):
        checkpoints.save(trainer_at(step), Selection())
    newest = checkpoints.paths()[0]
    newest.write_bytes(newest.read_bytes()[:700] if damage is None else damage)
    found = trainer_at(0)
    checkpoints.restore(found)
    assert found.step == 5
    assert "checkpoint-00000006.pt, going on from the one before" in caplog.text


def test_with_all_of_them_damaged_training_begins_anew(tmp_path):
    checkpoints = kept(tmp_path)
    checkpoints.save(trainer_at(5), Selection(0.5, 1, 1))
    checkpoints.paths()[0].write_bytes(b"x")
    found = trainer_at(0)
    assert checkpoints.restore(found) == Selection()
    assert found.step == 0


def test_every_other_setting_is_named_also_new_ones(tmp_path):
    kept(tmp_path, batch_size=4, old=1).save(trainer_at(5), Selection())
    trainer = trainer_at(0)
    with pytest.raises(ResumeError) as refused:
        kept(tmp_path, batch_size=5, new=2).restore(trainer)
    said = str(refused.value)
    assert "batch_size: 4 then, 5 now; new: None then, 2 now; old: 1 then, None now" in said
    assert f"delete {tmp_path} to begin anew" in said
    assert trainer.step == 0


def test_the_best_weights_are_put_back_and_nothing_else(tmp_path):
    checkpoints, trainer = kept(tmp_path, "refine_"), trainer_at(5, value=3.0)
    checkpoints.save_best(trainer)
    nn.init.constant_(trainer.module.weight, 9.0)
    trainer.step = 8
    checkpoints.restore_best(trainer)
    assert float(trainer.module.weight[0, 0]) == 3.0
    assert trainer.step == 8
    assert checkpoints.paths() == []  # it is no checkpoint to go on from


def test_a_single_checkpoint_is_replaced(tmp_path):
    for step in (3, 4):
        save_checkpoint(tmp_path / "heads.pt", trainer_at(step))
    found = trainer_at(0)
    assert restore(tmp_path / "heads.pt", found) == found.step == 4
    assert [p.name for p in tmp_path.iterdir()] == ["heads.pt"]
    assert torch.load(tmp_path / "heads.pt", weights_only=True)["step"] == 4
