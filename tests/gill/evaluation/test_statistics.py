import math

import pytest
import torch

from gill.evaluation.statistics import mean_and_error


def test_the_error_is_that_of_the_mean_of_what_is_there():
    mean, error = mean_and_error(torch.tensor([1.0, float("nan"), 2.0, 6.0]))
    assert mean == pytest.approx(3.0)
    assert error == pytest.approx((14 / 2) ** 0.5 / 3**0.5)  # deviations -2, -1 and 3


def test_one_value_has_no_error_and_none_no_mean():
    assert mean_and_error(torch.tensor([4.0])) == (4.0, 0.0)
    mean, error = mean_and_error(torch.tensor([float("nan")]))
    assert math.isnan(mean)
    assert error == 0.0
