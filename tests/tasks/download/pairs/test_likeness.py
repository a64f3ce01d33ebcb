"""Images that come again are named, and which of them stands where."""

import numpy as np

from tasks.download.pairs.likeness import (
    Alike,
    Row,
    each_once,
    like_hashes,
    marks_of,
    nearest,
    same_bytes,
)


def test_the_same_bytes_within_a_split_and_in_two():
    marks = {
        "train": marks_of(["a" * 64, "b" * 64, "a" * 64, ""]),
        "test": marks_of(["", "a" * 64]),
    }
    keys = {"train": ["t0", "t1", "t2", "t3"], "test": ["x0", "x1"]}
    within = Alike(Row("train", "t2"), Row("train", "t0"))
    leak = Alike(Row("test", "x1"), Row("train", "t0"))
    assert same_bytes(marks, keys) == [within, leak]
    assert (within.leak, leak.leak) == (False, True)
    assert same_bytes({"train": marks["train"]}, keys) == [within]
    assert same_bytes({"train": marks_of([])}, {"train": []}) == []
    assert same_bytes({"train": marks_of([]), "test": marks["test"]}, {**keys, "train": []}) == []


def test_two_images_are_told_once_and_the_held_out_one_first():
    a, b, x = Row("train", "a"), Row("train", "b"), Row("test", "x")
    found = [Alike(a, b, 0.99), Alike(b, a, 0.99), Alike(a, x, 1.0), Alike(x, a, 1.0)]
    assert each_once(found) == [Alike(a, b, 0.99), Alike(x, a, 1.0)]
    assert each_once(reversed(found)) == [Alike(x, a, 1.0), Alike(a, b, 0.99)]


def test_like_hashes_are_found_within_and_across_splits():
    hashes = {
        "train": np.array([0b1111, 0b1111 << 40, 0, 0b0111], np.uint64),
        "test": np.array([0b1111 << 41, 0, 0b1 << 60], np.uint64),
    }
    keys = {"train": ["t0", "t1", "t2", "t3"], "test": ["x0", "x1", "x2"]}
    sample = {"train": [0, 2, 3], "test": [0, 1]}
    t0, t3, leak = (
        Row("train", "t0"),
        Row("train", "t3"),
        Alike(Row("test", "x0"), Row("train", "t1"), 2),
    )
    assert like_hashes(hashes, keys, sample, 2) == [Alike(t0, t3, 1), Alike(t3, t0, 1), leak]
    assert each_once(like_hashes(hashes, keys, sample, 1)) == [Alike(t0, t3, 1)]


def test_the_nearest_of_each_split_is_as_by_brute_force():
    rng = np.random.default_rng(0)
    vectors = {
        s: rng.normal(size=(n, 5)).astype(np.float32) for s, n in (("train", 30), ("test", 9))
    }
    vectors["test"][4] = 3 * vectors["train"][17]
    keys = {split: [f"{split}{i}" for i in range(len(v))] for split, v in vectors.items()}
    batches = [
        (s, keys[s][i : i + 7], vectors[s][i : i + 7]) for s in vectors for i in range(0, 30, 7)
    ]
    rows = [Row(s, key) for s in vectors for key in keys[s]]
    found = {
        (a.one, a.other.split): a
        for a in nearest(np.concatenate([*vectors.values()]), rows, batches)
    }
    assert len(found) == 2 * len(rows)
    for (one, split), alike in found.items():
        own = vectors[one.split][keys[one.split].index(one.key)]
        cosines = (
            vectors[split] @ own / np.linalg.norm(vectors[split], axis=1) / np.linalg.norm(own)
        )
        if split == one.split:
            cosines[keys[split].index(one.key)] = -2
        assert alike.other.key == keys[split][int(cosines.argmax())]
        np.testing.assert_allclose(alike.measure, cosines.max(), atol=1e-5)
    leak = found[Row("test", "test4"), "train"]
    assert (leak.other.key, round(leak.measure, 4)) == ("train17", 1.0)
