"""Search by codes against exact search, exclusions, and indexes that are refused."""

import pytest
import torch
import torch.nn.functional as F

from gill.inference.index import Index


def vectors(count, width=16, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return F.normalize(torch.randn(count, width, generator=generator), dim=-1)


def names(count):
    return [f"image-{i}" for i in range(count)]


def test_nearest_is_the_plain_order():
    images, queries = vectors(50), vectors(4, seed=1)
    found = Index(names(50), images).nearest(queries, 3)
    for query, row in zip(queries, found, strict=True):
        cosine = images @ query
        best = cosine.argsort(descending=True)[:3].tolist()
        assert [match.key for match in row] == [f"image-{i}" for i in best]
        torch.testing.assert_close(torch.tensor([m.score for m in row]), cosine[best])


@pytest.mark.parametrize("width", [16, 15])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_codes_find_what_exact_search_finds(width, dtype):
    images, queries = vectors(5000, width).to(dtype), vectors(20, width, seed=1)
    exact = Index(names(5000), images).nearest(queries, 10)
    coded = Index(names(5000), images, exact_up_to=100, shortlist=500).nearest(queries, 10)
    shared = [{m.key for m in a} & {m.key for m in b} for a, b in zip(exact, coded, strict=True)]
    assert sum(map(len, shared)) >= 0.99 * 200
    scores = {(row, m.key): m.score for row, found in enumerate(exact) for m in found}
    for row, found in enumerate(coded):
        assert [m.score for m in found] == sorted((m.score for m in found), reverse=True)
        for match in found:  # the codes choose, the vectors score
            if (row, match.key) in scores:
                assert match.score == pytest.approx(scores[row, match.key], abs=1e-6)


def test_vectors_are_held_once():
    index = Index(names(500), vectors(500), exact_up_to=100)
    first = index.nearest(vectors(2, seed=1), 3)
    assert index.vectors.shape == (0, 16)  # faiss holds them now
    assert index.nearest(vectors(2, seed=1), 3) == first


def test_keys_that_are_left_out_are_not_found():
    index = Index(names(6), vectors(6))
    all_of_them = [m.key for m in index.nearest(vectors(1, seed=2), 9)[0]]
    assert len(all_of_them) == 6
    left = index.nearest(vectors(1, seed=2).expand(2, -1), 2, [all_of_them[:1], all_of_them[1:]])
    assert [m.key for m in left[0]] == all_of_them[1:3]
    assert [m.key for m in left[1]] == all_of_them[:1]


def test_indexes_that_do_not_line_up_are_refused():
    with pytest.raises(ValueError, match="3 keys and 2 vectors"):
        Index(names(3), vectors(2))
    with pytest.raises(ValueError, match="at least one"):
        Index([], torch.empty(0, 4))
    with pytest.raises(ValueError, match="'b' is in the index twice"):
        Index(["a", "b", "b"], vectors(3))
