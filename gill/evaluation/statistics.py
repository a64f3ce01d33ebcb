"""A mean and how sure it is."""

from __future__ import annotations

import math

from torch import Tensor


def mean_and_error(values: Tensor) -> tuple[float, float]:
    """Mean of the values ``(n,)`` that are there, and its standard error.

    NaN stands for a value that is not there. Of one value the error is 0, of none the mean is NaN.
    """
    there = values[~values.isnan()]
    if not len(there):
        return math.nan, 0.0
    error = float(there.std()) / len(there) ** 0.5 if len(there) > 1 else 0.0
    return float(there.mean()), error
