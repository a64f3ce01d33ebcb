"""Values in 8 bits: within half a step, and hardly seen in the loss."""

import numpy as np
from shard_tables import target_table

from data.quantization import quantise, restore
from data.shards import AlignedShards, write_shard


def like_a_text_encoder(count=16, tokens=77, dim=768):
    """Normal values of which three widths are thirty times as large, as CLIP's are."""
    values = np.random.default_rng(0).normal(size=(count, tokens, dim))
    values[..., [5, 300, 700]] *= 30
    return values


def test_eight_bits_come_back_as_half_precision_within_half_a_step(tmp_path):
    values = like_a_text_encoder()
    path = tmp_path / "targets" / "train-00000.parquet"
    write_shard(path, target_table(values))
    found = AlignedShards({path.parent: ["target"]}, "train").all()
    assert set(found) == {"key", "target"}
    assert found["target"].dtype == np.float16
    blocks = values.reshape(16, -1, 64)
    bound = np.abs(blocks).max(-1, keepdims=True) / 127 * 0.51 + np.abs(blocks) * 1e-3
    assert (
        np.abs(found["target"].astype(np.float32).reshape(blocks.shape) - blocks) <= bound
    ).all()


def test_eight_bits_are_at_most_six_tenths_and_near_in_l_g(tmp_path):
    values = like_a_text_encoder()
    sizes, targets = {}, {}
    for kind in ("fp16", "int8"):
        path = tmp_path / kind / "train-00000.parquet"
        write_shard(path, target_table(values, kind))
        sizes[kind] = path.stat().st_size
        targets[kind] = AlignedShards({path.parent: ["target"]}, "train").all()["target"]
    assert sizes["int8"] <= 0.6 * sizes["fp16"]

    def l_g(predicted, target):
        difference = predicted - target.astype(np.float32).reshape(predicted.shape)
        return np.linalg.norm(difference, axis=-1).mean()

    guess = np.zeros_like(values)
    exact = l_g(guess, targets["fp16"])
    assert abs(l_g(guess, targets["int8"]) - exact) < 1e-3 * exact


def test_zeros_and_tiny_values_survive():
    values = np.zeros((2, 1, 64))
    values[1] = 1e-9
    found, scales = quantise(values, 64)
    assert (restore(found, scales) == 0).all()
