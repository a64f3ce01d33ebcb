"""Runs that differ in one setting, summed up by hand."""

from dataclasses import replace

import pyarrow as pa
import pytest

from data.artifacts import Evaluation
from data.shards import write_shard
from tasks.evaluation.generated_images import IMAGES, TO_TRUE
from tasks.evaluation.sweep import (
    Point,
    as_table,
    headline,
    metrics_of,
    paired,
    plots,
    similarities,
)


def point(value, *runs, similarities=(), own=False):
    metrics = [{"l_g": a, "similarity": b} for a, b in runs]
    by_key = {str(i): s for i, s in enumerate(similarities)}
    return Point("mapper.kind", value, metrics, ["x"], by_key, own)


def test_tables_and_error_bars_by_hand():
    points = [
        point("gill", (1.0, 0.5), (3.0, 0.5), similarities=(0.4, 0.6), own=True),
        point("linear", (2.0, 0.1), similarities=(0.1, 0.1)),  # -0.3 and -0.5
    ]
    assert as_table(points).splitlines() == [
        "| sweep | value | seeds | l_g | similarity | similarity less the recipe's |",
        "|---|---|---|---|---|---|",
        "| mapper.kind | gill | 2 | 2.0000 ± 1.4142 | 0.5000 ± 0.0000 | - |",
        "| mapper.kind | linear | 1 | 2.0000 ± 0.0000 | 0.1000 ± 0.0000 | -0.4000 ± 0.1000 |",
    ]
    panels = plots(points)["mapper_kind"].axes
    assert [p.get_title() for p in panels][2:] == ["similarity less the recipe's"]
    axes = panels[0]
    assert axes.get_title() == "l g"
    line, _, (bars,) = axes.containers[0]
    assert line.get_ydata().tolist() == [2.0, 2.0]
    assert bars.get_segments()[0][:, 1].tolist() == pytest.approx([2 - 2**0.5, 2 + 2**0.5])


def test_the_headline_is_about_the_mapper():
    found = headline(
        {
            "mapper": {"validation_l_g": 5.0, "loss": 1.0},
            "adapters": {"validation_t2i_r10": 0.4},
            "evaluate": {
                "gill_similarity": 0.1,
                "gill_similarity_se": 0.2,
                "gill_fid": 9.0,
                "gill_minus_x_similarity": 1.0,
                "own_text_encoder_similarity": 0.3,
                "story_gill_5_captions_image_similarity": 0.5,
                "story_gill_5_captions_image_similarity_sd": 0.01,
                "story_gill_5_captions_lpips": 0.6,
                "story_gill_minus_linear_5_captions_image_similarity": 0.2,
                "story_linear_5_captions_image_similarity": 0.3,
            },
        }
    )
    assert found == {
        "l_g": 5.0,
        "t2i_r10": 0.4,
        "similarity": 0.1,
        "fid": 9.0,
        "story_5_captions_image_similarity": 0.5,
    }


def test_only_what_every_run_has_is_compared():
    points = [point("gill", (1.0, 0.5)), point("linear", (1.0, 0.5))]
    points[1].runs[0]["fid"] = 9.0
    assert metrics_of(points) == ["l_g", "similarity"]
    points[1].runs[0].pop("l_g")
    assert metrics_of(points) == ["similarity"]


def test_a_difference_needs_the_recipes_own_point_and_two_captions():
    other = point("linear", (1.0, 0.5), similarities=(0.1, 0.3))
    own = point("gill", (1.0, 0.5), similarities=(0.2, 0.2, 0.9), own=True)
    assert paired(other, [other]) is None
    assert paired(own, [own, other]) is None
    # Of the captions that both have: -0.1 and +0.1.
    assert paired(other, [own, other]) == pytest.approx((0.0, 0.1))
    single = point("mlp", (1.0, 0.5), similarities=(0.1,))
    assert paired(single, [own, single]) is None
    elsewhere = replace(own, sweep="adapters.num_img_tokens")
    assert paired(other, [elsewhere, other]) is None


def test_similarities_are_gills_and_the_mean_over_evaluations(tmp_path):
    evaluated = []
    for number, values in enumerate(((0.1, 0.5), (0.3, 0.7))):
        folder = tmp_path / str(number)
        table = pa.table({"key": ["a", "b"], TO_TRUE: values})
        write_shard(folder / IMAGES / "gill-01000-00000.parquet", table)
        other = pa.table({"key": ["a", "b"], TO_TRUE: [9.0, 9.0]})
        write_shard(folder / IMAGES / "linear_mapper-01000-00000.parquet", other)
        evaluated.append(Evaluation("evaluate", str(number), folder))
    assert similarities(evaluated) == pytest.approx({"a": 0.2, "b": 0.6})


def test_numbers_are_joined_by_a_line_and_names_are_not():
    numbers = [point(n, (1.0, 0.5)) for n in (2, 4, 8)]
    assert plots(numbers)["mapper_kind"].axes[0].lines[0].get_linestyle() == "-"
    names = [point(n, (1.0, 0.5)) for n in ("gill", "mlp")]
    assert plots(names)["mapper_kind"].axes[0].lines[0].get_linestyle() == "None"
