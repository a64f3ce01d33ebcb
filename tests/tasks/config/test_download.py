"""The download's settings: what each source wants, which rows of a list, who is to be asked."""

import pytest
from pydantic import ValidationError

from tasks.config.download import DownloadConfig

HUB = {
    "source": "huggingface",
    "dataset": "a/b",
    "paths": {"train": "train"},
    "columns": {"caption": "text", "image": "image"},
}


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"source": "folder"}, r"download\.paths and download\.images must be set"),
        (
            {"source": "folder", "paths": {"train": "a"}},
            r"download\.images must be set for .*folder",
        ),
        ({"source": "webdataset"}, r"download\.paths must be set .* 'webdataset'"),
        ({**HUB, "dataset": ""}, r"download\.dataset must be set"),
        ({**HUB, "columns": {"text": "a", "image": "b"}}, "must name caption and one of image"),
        ({**HUB, "columns": {"caption": "a"}}, "must name caption and one of image"),
        ({**HUB, "columns": {"caption": "a", "image": "b", "url": "c"}}, "one of image and url"),
        ({"source": "cc3m", "paths": {"train": "a.tsv"}}, r"download\.contact is empty"),
        ({**HUB, "columns": {"caption": "a", "url": "b"}}, r"download\.contact is empty"),
    ],
)
def test_a_source_without_what_it_wants_is_refused(given, message):
    with pytest.raises(ValidationError, match=message):
        DownloadConfig(**given)


@pytest.mark.parametrize("rows", ["[2:1]", "[3:3]", "[a:b]", "[:-1]", "[1.5:]", "[:0]"])
def test_rows_that_are_none_are_refused(rows):
    with pytest.raises(ValidationError, match=r"\[from:to\]"):
        DownloadConfig(**{**HUB, "paths": {"train": f"train{rows}"}})


@pytest.mark.parametrize(
    "path", ["a[0-9].tar", "a-{00000..00331}.tar", "train[:10]", "a[1:]", "b[:]"]
)
def test_wildcards_ranges_and_rows_are_taken(path):
    assert DownloadConfig(**{**HUB, "paths": {"train": path}}).paths == {"train": path}


def test_where_files_lie_does_not_bear_and_what_they_hold_does():
    """The source's identity has their contents, which the stage's fingerprint takes up."""
    for names in ("a", "b"):
        given = {"paths": {"train": f"/{names}/l.tsv"}, "images": f"/{names}/images"}
        fields = DownloadConfig(source="folder", **given).fingerprint_fields()
        assert not {"paths", "images", "dataset"} & set(fields)
        assert fields["source"] == "folder"
