"""Images that come again are named, and which of them stands where."""

import numpy as np

from tasks.download.pairs.likeness import Row, marks_of, nearest, same_bytes


def test_the_same_bytes_in_two_splits():
    marks = {
        "train": marks_of(["a" * 64, "b" * 64, "a" * 64, ""]),
        "test": marks_of(["", "a" * 64]),
    }
    keys = {"train": ["t0", "t1", "t2", "t3"], "test": ["x0", "x1"]}
    assert same_bytes(marks, keys) == [(Row("test", "x1"), Row("train", "t0"))]
    assert same_bytes({"train": marks["train"]}, keys) == []


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
        np.testing.assert_allclose(alike.cosine, cosines.max(), atol=1e-5)
    leak = found[Row("test", "test4"), "train"]
    assert (leak.other.key, round(leak.cosine, 4)) == ("train17", 1.0)
