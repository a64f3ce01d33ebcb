"""Every Arrow schema of the project. A shard carries its schema's name and version as metadata."""

from __future__ import annotations

import pyarrow as pa

VERSION = 1
# Versions that are not the first.
_NEWER = {"images": 3, "text_targets": 2, "features": 2, "img_states": 2}
_META = "gill.schema"


class SchemaError(ValueError):
    """A shard holds another kind or version of data than the reader expects."""


def versioned(name: str) -> str:
    """The ``name/version`` that shards of this name carry."""
    return f"{name}/{_NEWER.get(name, VERSION)}"


def _named(name: str, fields: list[tuple[str, pa.DataType]]) -> pa.Schema:
    return pa.schema(fields, metadata={_META: versioned(name)})


IMAGES = _named(
    "images",
    [
        ("key", pa.string()),
        ("caption", pa.string()),
        ("origin", pa.string()),
        ("source", pa.string()),
        ("image", pa.binary()),
        ("width", pa.int32()),
        ("height", pa.int32()),
        ("original_width", pa.int32()),
        ("original_height", pa.int32()),
        ("sha256", pa.string()),  # of the bytes as they came
        ("truth", pa.string()),  # what the image shows, as JSON, where the source knows it
    ],
)

# What became no image, with all that is needed to try it again.
FAILURES = _named(
    "failures",
    [
        ("key", pa.string()),
        ("caption", pa.string()),
        ("origin", pa.string()),
        ("source", pa.string()),  # empty for a row that the source could not read
        ("reason", pa.string()),
        ("detail", pa.string()),
        ("retry_at", pa.float64()),  # seconds since 1970, 0 for any time
    ],
)

# Rows of one list whose address stands in an earlier row: they go to the shard of that row.
REPEATS = _named(
    "repeats",
    [
        ("row", pa.int64()),
        ("first", pa.int64()),
        ("key", pa.string()),
        ("caption", pa.string()),
        ("origin", pa.string()),
        ("source", pa.string()),
    ],
)

DUPLICATES = _named(
    "duplicates",
    [
        ("key", pa.string()),
        ("first", pa.string()),  # the key of the image that it repeats
        ("sha256", pa.string()),
        ("kind", pa.string()),  # url, content or placeholder
    ],
)


def features(dim: int) -> pa.Schema:
    """Pooled vision features, ``dim`` wide, half precision."""
    # As bytes, here and below: Parquet reads lists of numbers several times slower.
    return _named("features", [("key", pa.string()), ("feature", pa.binary(2 * dim))])


# Perceptual hashes of images; see ``tasks.download.pairs.perceptual``.
HASHES = _named("hashes", [("key", pa.string()), ("hash", pa.uint64())])

# Which training pairs are trained on; see ``data.shards.AlignedShards``.
KEPT = _named(
    "kept",
    [("key", pa.string()), ("similarity", pa.float32()), ("kept", pa.bool_())],
)


def text_targets(tokens: int, dim: int, block: int = 0) -> pa.Schema:
    """Text-encoder outputs, row-major ``tokens x dim``, and the caption's own token count.

    Args:
        block: 0 for half precision; otherwise 8-bit codes with a scale for each ``block`` values,
            see ``data.quantization``.
    """
    size = tokens * dim
    fields = [("key", pa.string()), ("num_tokens", pa.int32())]
    fields.append(("target", pa.binary(size if block else 2 * size)))
    if block:
        fields.append(("target_scale", pa.list_(pa.float16(), size // block)))
    schema = _named("text_targets", fields)
    return schema.with_metadata({**schema.metadata, "gill.shape": f"{tokens},{dim}"})


def img_states(num_img_tokens: int, dim: int) -> pa.Schema:
    """Hidden states of the [IMG] tokens after a caption, row-major ``num_img_tokens x dim``."""
    schema = _named(
        "img_states",
        [("key", pa.string()), ("state", pa.binary(2 * num_img_tokens * dim))],
    )
    return schema.with_metadata({**schema.metadata, "gill.shape": f"{num_img_tokens},{dim}"})


def embeddings(dim: int) -> pa.Schema:
    """Unit vectors of the retrieval space."""
    return _named("embeddings", [("key", pa.string()), ("embedding", pa.list_(pa.float32(), dim))])


def name_of(schema: pa.Schema) -> str:
    """The ``name/version`` a schema carries, or ``none``."""
    return (schema.metadata or {}).get(_META.encode(), b"none").decode()


def shape_of(schema: pa.Schema) -> tuple[int, int]:
    """Shape of one value of a two-dimensional column.

    Raises:
        SchemaError: the schema has none.
    """
    text = (schema.metadata or {}).get(b"gill.shape")
    if text is None:
        raise SchemaError(f"a shard of {name_of(schema)} carries no shape")
    rows, columns = text.decode().split(",")
    return int(rows), int(columns)


def check(found: pa.Schema, name: str, where: str) -> None:
    """Raise ``SchemaError`` unless a shard holds ``name`` in this version."""
    if name_of(found) != versioned(name):
        raise SchemaError(
            f"{where} holds {name_of(found)}, not {versioned(name)}; delete it and run its stage"
        )
