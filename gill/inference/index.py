"""Search among the images that can be retrieved."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from functools import cached_property
from typing import Any, NamedTuple

import torch
from torch import Tensor

EXACT_UP_TO = 100_000
SHORTLIST = 2000
_TRAINED_ON = 100_000


class Match(NamedTuple):
    """An image of the index and the cosine of its unit vector with the query's."""

    key: str
    score: float


class Index:
    """Keys and unit vectors of images.

    Up to ``exact_up_to`` images every vector is compared. Beyond that faiss scans 4-bit codes
    (product quantisation of two dimensions each) for a shortlist and refines it by the exact
    scores: ``benchmarks/generate.py`` measures what that costs and misses.

    Args:
        keys: a name for each image, no name twice.
        vectors: unit vectors ``(n, d)``, in any floating precision.
        origin: says where the image of a key came from; the key itself without it.
        exact_up_to: the largest index that is searched without codes.
        shortlist: candidates that are compared exactly.

    Attributes:
        vectors: those given; empty once faiss holds them, at the first search by codes.

    Raises:
        ValueError: nothing is given, keys and vectors do not line up, or a key is there twice.
    """

    def __init__(
        self,
        keys: Sequence[str],
        vectors: Tensor,
        origin: Callable[[str], str] = str,
        exact_up_to: int = EXACT_UP_TO,
        shortlist: int = SHORTLIST,
    ) -> None:
        if not len(keys) or len(keys) != len(vectors):
            raise ValueError(
                f"an index needs one key for each vector and at least one; there are {len(keys)} "
                f"keys and {len(vectors)} vectors"
            )
        if len(set(keys)) != len(keys):
            seen: set[str] = set()
            twice = next(key for key in keys if key in seen or seen.add(key))  # type: ignore[func-returns-value]
            raise ValueError(f"the key {twice!r} is in the index twice; keys must differ")
        self.keys, self.vectors, self.origin = keys, vectors, origin
        self.exact_up_to, self.shortlist = exact_up_to, shortlist

    def __len__(self) -> int:
        return len(self.keys)

    def nearest(
        self, queries: Tensor, count: int = 1, without: Sequence[Collection[str]] | None = None
    ) -> list[list[Match]]:
        """The nearest images of each query, best first.

        Args:
            queries: unit vectors ``(n, d)``.
            count: images for each query; fewer where the index has no more.
            without: for each query the keys that are left out.
        """
        left_out = without or [()] * len(queries)
        spare = max((len(keys) for keys in left_out), default=0)
        scores, rows = self._search(queries.to(self.vectors.device).float(), count + spare)
        found = []
        for row_scores, row, keys in zip(scores.tolist(), rows.tolist(), left_out, strict=True):
            matches = (Match(self.keys[i], s) for i, s in zip(row, row_scores, strict=True))
            found.append([match for match in matches if match.key not in keys][:count])
        return found

    def _search(self, queries: Tensor, count: int) -> tuple[Tensor, Tensor]:
        count = min(count, len(self))
        if len(self) <= self.exact_up_to or self.vectors.is_cuda:
            scores, rows = (queries @ self.vectors.float().T).topk(count, dim=-1)
            return scores, rows
        import faiss

        wanted = min(max(self.shortlist, 4 * count), len(self))
        exact = faiss.IndexRefineSearchParameters()
        exact.k_factor = wanted / count
        scores, rows = self._codes.search(queries.numpy(), count, params=exact)
        return torch.from_numpy(scores), torch.from_numpy(rows)

    @cached_property
    def _codes(self) -> Any:
        import faiss

        count, width = self.vectors.shape
        metric = faiss.METRIC_INNER_PRODUCT
        exact: Any
        codes = faiss.IndexPQFastScan(width, width // 2 if width % 2 == 0 else width, 4, metric)
        if self.vectors.dtype == torch.float16:
            exact = faiss.IndexScalarQuantizer(width, faiss.ScalarQuantizer.QT_fp16, metric)
        else:
            exact = faiss.IndexFlatIP(width)
        sample = torch.randperm(count, generator=torch.Generator().manual_seed(0))[:_TRAINED_ON]
        codes.train(self.vectors[sample].float().numpy())
        index = faiss.IndexRefine(codes, exact)
        for part in self.vectors.split(_TRAINED_ON):
            index.add(part.float().numpy())
        self.vectors = torch.empty(0, width, dtype=self.vectors.dtype)
        return index
