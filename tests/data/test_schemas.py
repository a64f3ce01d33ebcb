"""Schemas: a shard carries its kind and version, and a reader of another kind says so."""

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from data import schemas


def test_a_kind_and_version_survive_a_file(tmp_path):
    for schema, name in (
        (schemas.IMAGES, "images/3"),
        (schemas.FAILURES, "failures/1"),
        (schemas.features(4), "features/2"),
        (schemas.text_targets(2, 4), "text_targets/2"),
        (schemas.img_states(2, 4), "img_states/2"),
        (schemas.embeddings(4), "embeddings/1"),
    ):
        pq.write_table(schema.empty_table(), tmp_path / "x.parquet")
        found = pq.read_schema(tmp_path / "x.parquet")
        assert schemas.name_of(found) == name
        schemas.check(found, name.partition("/")[0], "here")


def test_other_kinds_and_versions_are_refused_with_place_and_remedy():
    with pytest.raises(
        schemas.SchemaError, match=r"x\.parquet holds images/3, not failures/1; .*run its stage"
    ):
        schemas.check(schemas.IMAGES, "failures", "x.parquet")
    with pytest.raises(schemas.SchemaError, match="holds none, not images/3"):
        schemas.check(pa.schema([("key", pa.string())]), "images", "x.parquet")
    old = schemas.IMAGES.with_metadata({"gill.schema": "images/2"})
    with pytest.raises(schemas.SchemaError, match="images/2, not images/3"):
        schemas.check(old, "images", "x.parquet")


def test_shapes_of_values_are_carried():
    assert schemas.shape_of(schemas.text_targets(77, 768)) == (77, 768)
    assert schemas.shape_of(schemas.text_targets(77, 768, 64)) == (77, 768)
    assert schemas.shape_of(schemas.img_states(8, 4096)) == (8, 4096)
    with pytest.raises(schemas.SchemaError, match="features/2 carries no shape"):
        schemas.shape_of(schemas.features(4))


def test_widths_are_those_of_the_values():
    half, eight = schemas.text_targets(2, 128), schemas.text_targets(2, 128, 64)
    assert half.field("target").type.byte_width == 2 * 2 * 128
    assert eight.field("target").type.byte_width == 2 * 128
    assert eight.field("target_scale").type.list_size == 2 * 128 // 64
    assert schemas.features(7).field("feature").type.byte_width == 14
    assert schemas.img_states(3, 5).field("state").type.byte_width == 30
