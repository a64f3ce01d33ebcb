"""What stands for the errors of a fetch."""

import pytest

from data.download.fetch_errors import retry_seconds


@pytest.mark.parametrize(
    "after", ["\u00b2", "Fri, 01 Jan 2100 00:00:00 -9999999999999", "9" * 5000, "\udce9", ""]
)
def test_a_retry_after_without_sense_is_a_number_of_seconds(after):
    assert retry_seconds(after) >= 0
