"""The stage adapters on a store of a few rows."""

import pytest
from small_store import R, SmallStore, tiny_context

from data.io.journal import JOURNAL
from tasks.config.adapters import AdaptersConfig
from tasks.stages.adapters import run

pytestmark = pytest.mark.slow  # trains

CONFIG = AdaptersConfig(
    num_img_tokens=R, num_visual_tokens=2, retrieval_dim=8, steps=6, batch_size=4, warmup_steps=0,
    checkpoint_every=2, precision="float32",
)  # fmt: skip


@pytest.fixture
def store(tmp_path):
    return SmallStore(tmp_path / "store")


def trained(store, out):
    out.mkdir(parents=True, exist_ok=True)
    return run(tiny_context(CONFIG, out), store.images, store.features)


def test_what_only_a_resumption_needs_is_removed(store, tmp_path):
    made = trained(store, tmp_path / "adapters" / "f.partial")
    kept = {p.name for p in made.path.iterdir() if p.name != JOURNAL}
    assert kept == {"adapters.json", "adapters.safetensors", "states"}
    assert (made.stage, made.fingerprint) == ("adapters", "f")
    assert {"validation_l_c", "validation_l_p", "validation_l_r"} < set(made.metrics)


def test_a_kill_between_training_and_writing_costs_nothing_and_changes_no_bit(
    store, tmp_path, monkeypatch
):
    whole = trained(store, tmp_path / "whole").adapters_weights.read_bytes()
    from tasks.training import adapters

    def killed(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(adapters, "save_adapters", killed)
        with pytest.raises(KeyboardInterrupt):
            trained(store, tmp_path / "again")
    assert list((tmp_path / "again").glob("checkpoint-00000006.pt"))
    assert trained(store, tmp_path / "again").adapters_weights.read_bytes() == whole
