"""Two folders of shards that belong together."""

import pytest
from shard_tables import feature_table

from data.shards import write_shard


@pytest.fixture
def folders(tmp_path):
    """Two aligned folders of 5 shards with 10, 10, 10, 10 and 7 rows."""
    left, right = tmp_path / "left" / "features", tmp_path / "right" / "features"
    count = 0
    for number, size in enumerate([10, 10, 10, 10, 7]):
        keys = [f"k{count + i}" for i in range(size)]
        for folder in (left, right):
            write_shard(folder / f"train-{number:05d}.parquet", feature_table(keys))
        count += size
    return left, right
