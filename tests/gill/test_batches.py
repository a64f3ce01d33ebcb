"""A batch is split into parts that together are the whole, each knowing its place in it."""

import pytest
import torch

from gill.batches import AdapterBatch, split_batch

CAPTIONS = [[1, 5, 6], [1, 7], [1, 8, 9, 10], [1, 4], [1, 3, 3]]


def split(accumulate):
    embedded = []

    def embed_text(parts):
        embedded.extend(parts)
        return torch.tensor([[float(len(ids))] for part in parts for ids in part])

    batch = AdapterBatch(
        CAPTIONS, torch.arange(10.0).view(5, 2), torch.zeros(5, 4, 3), tuple("abcde")
    )
    return batch, embedded, split_batch(batch, True, accumulate, 1, embed_text)


def test_parts_are_the_rows_of_the_whole_in_order():
    batch, embedded, parts = split(2)
    assert sum(fraction for _, fraction in parts) == pytest.approx(1.0)
    assert [ids for part, _ in parts for ids in part.captions] == CAPTIONS
    assert [key for part, _ in parts for key in part.keys] == list("abcde")
    for part, fraction in parts:
        whole = part.whole
        assert torch.equal(part.features, batch.features[whole.rows])
        assert torch.equal(whole.features, batch.features)
        assert fraction == whole.fraction == len(part) / 5
        assert part.packed
        assert whole.counts == (5,)
        assert whole.text[:, 0].tolist() == [3, 2, 4, 2, 3]
    assert [ids for part in embedded for ids in part] == CAPTIONS


def test_pairs_stay_together():
    _, _, parts = split(2)
    assert [part.whole.rows for part, _ in parts] == [slice(0, 2), slice(2, 5)]


def test_labels_are_counted_without_bos():
    # Labels of an example are its tokens without BOS and end-of-text: 3, 2, 4, 2, 3.
    _, _, parts = split(2)
    mean = 14 / 5
    assert [part.whole.labels for part, _ in parts] == pytest.approx([mean / 2.5, mean / 3])


def test_an_empty_part_takes_part_without_weight():
    _, embedded, parts = split(4)
    assert [fraction for _, fraction in parts] == pytest.approx([0.0, 0.4, 0.4, 0.2])
    assert [len(part) for part, _ in parts] == [1, 2, 2, 1]
    assert [ids for part in embedded for ids in part] == CAPTIONS
