"""Training pairs whose caption and image fit too little are told apart, shard by shard."""

import numpy as np
import pytest
import torch
from small_store import SmallStore

from data import schemas
from data.artifacts import ClipFeatures
from data.shards import AlignedShards, read_table, shard_names, write_shard
from gill.backbones.testing import micro_models
from gill.backbones.vision import UnsuitableTowerError
from tasks.download.pairs.similarity import check_text_tower, drop_dissimilar, similarities
from tasks.runner.stage import NothingKeptError
from tasks.tracking.stage_log import ConsoleLog


@pytest.fixture
def store(tmp_path):
    return SmallStore(tmp_path)


def cosines_of(store, split="train"):
    """By the plain formula, one pair at a time."""
    encoder, found = micro_models.vision_encoder(), []
    for caption, feature in zip(store.captions[split], store.features_of[split], strict=True):
        text = encoder.model.encode_text(encoder.tokenizer([caption]))[0]
        image = torch.from_numpy(feature.astype(np.float32)) @ encoder.model.visual.proj
        found.append(float(torch.cosine_similarity(text, image, dim=0)))
    return np.array(found)


def dropped(store, out, minimum, encoders=1):
    towers = [micro_models.vision_encoder() for _ in range(encoders)]
    log = ConsoleLog()
    return drop_dissimilar(store.images, store.features.folder, towers, minimum, out, log)


def kept_of(out):
    folder = out / ClipFeatures.KEPT
    return [row for name in shard_names(folder) for row in read_table(folder / name).to_pylist()]


def test_cosines_are_those_of_one_pair_after_the_other(store):
    captions, vectors = store.captions["train"], store.features_of["train"].astype(np.float32)
    found = similarities(micro_models.vision_encoder(), captions, vectors)
    np.testing.assert_allclose(found, cosines_of(store), atol=1e-5)
    assert len(similarities(micro_models.vision_encoder(), [], vectors[:0])) == 0


@pytest.mark.parametrize("encoders", [1, 2])
def test_pairs_under_the_bound_are_dropped_and_counted(store, tmp_path, encoders):
    cosines = cosines_of(store)
    minimum = float(np.sort(cosines)[4:6].mean())  # five of twelve lie below
    assert dropped(store, tmp_path / "out", minimum, encoders) == {"low_similarity": 5}
    rows = kept_of(tmp_path / "out")
    assert [row["key"] for row in rows] == store.keys("train")
    assert [row["kept"] for row in rows] == (cosines >= minimum).tolist()
    np.testing.assert_allclose([row["similarity"] for row in rows], cosines, atol=1e-5)
    assert shard_names(tmp_path / "out" / ClipFeatures.KEPT) == store.images.names("train")
    features = ClipFeatures("clip_features", "f", tmp_path / "out")
    shards = AlignedShards({store.images.folder: ["caption"], **features.selection}, "train")
    stay = [
        c for c, cosine in zip(store.captions["train"], cosines, strict=True) if cosine >= minimum
    ]
    assert shards.all()["caption"] == stay


def test_a_bound_above_all_pairs_says_how_similar_they_are(store, tmp_path):
    write_shard(store.images.folder / "train-00002.parquet", schemas.IMAGES.empty_table())
    write_shard(store.features.folder / "train-00002.parquet", schemas.features(32).empty_table())
    most = f"{cosines_of(store).max():.3f}"
    with pytest.raises(NothingKeptError, match=f"0.99 drops all 12 training pairs.* is {most}"):
        dropped(store, tmp_path / "out", 0.99)


def test_a_tower_without_texts_is_refused():
    encoder = micro_models.vision_encoder()
    check_text_tower(encoder)
    encoder.model.encode_text = None
    with pytest.raises(UnsuitableTowerError, match="minimum_similarity is set"):
        check_text_tower(encoder)
