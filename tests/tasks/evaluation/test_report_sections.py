"""Sections of the report by hand: which figures stand where, verdicts, and worst cases."""

import pytest
import torch

from gill.evaluation.published import VIST
from tasks.evaluation.context_scores import ContextScores
from tasks.evaluation.report_sections import (
    context_effects,
    context_gallery,
    context_plot,
    context_scores,
    measured,
)

TRUE, TEXT = "image_image_similarity", "image_text_similarity"


def row(model, context, values, suite="vist", measure="image_similarity"):
    count = len(values[0])
    return ContextScores(
        suite,
        model,
        context,
        [f"case {i}" for i in range(count)],
        [f"{context} of {i}" for i in range(count)],
        {measure: torch.tensor(values)},
        [f"{model} {context} {i}".encode() for i in range(count)],
    )


def by_title(sections):
    return {section.title: section for section in sections}


def test_only_what_was_measured_is_shown():
    assert measured({"seconds": 3.0}) == []
    found = by_title(measured({"caption_bleu_1": 0.5, "retrieval_t2i_r1": 0.25, "other": 1.0}))
    assert list(found) == ["Captioning", "Retrieval"]
    assert found["Captioning"].tables[0].rows == [("bleu_1", 0.5)]
    assert found["Retrieval"].tables[0].rows == [("t2i_r1", 0.25)]


def test_each_conditioning_has_a_row_with_its_errors():
    metrics = {
        f"gill_{TRUE}": 0.5, f"gill_{TRUE}_se": 0.01, f"gill_{TRUE}_sd": 0.02,
        f"gill_{TEXT}": 0.25, f"gill_{TEXT}_se": 0.03,
        f"own_text_encoder_{TRUE}": 0.75,
        "gill_minus_own_text_encoder_image_image": -0.25,
    }  # fmt: skip
    (section,) = measured(metrics)
    table = section.tables[0]
    assert table.head == ("conditioning", TRUE, TEXT)
    assert table.rows == [
        ("gill", "0.500 (0.020)", "0.250 (0.030)"),  # deviations over seeds before errors
        ("own text encoder", "0.750", None),
    ]


def test_decisions_stand_beside_people_and_baselines():
    names = ("majority", "always_generate", "always_retrieve", "score_threshold")
    metrics = {f"decision_{n}_macro_f1": 0.1 * i for i, n in enumerate(names)}
    metrics |= {"decision_macro_f1": 0.5, "decision_macro_f1_low": 0.25,
                "decision_macro_f1_high": 0.75}  # fmt: skip
    (section,) = measured(metrics)
    rows = {r[0]: r[2] for r in section.tables[0].rows}
    assert rows["decision model"] == "0.500 (95 per cent: 0.250 to 0.750)"
    assert rows["agreement of people"] is None
    assert rows["score threshold"] == pytest.approx(0.3)


def test_the_papers_stories_come_first_and_a_missing_suite_is_said():
    sections = context_scores([row("gill", "1 caption", [[0.5, 0.7]], suite="told_story")])
    assert [r[0] for r in sections[0].tables[0].rows] == list(VIST)
    assert sections[1].paragraphs == ["VIST was not part of this run (evaluate.suites)."]
    assert len(context_scores([row("gill", "1 caption", [[0.5, 0.7]])])) == 2


def test_a_suite_has_a_table_for_each_measure_and_gaps_where_a_model_reads_nothing():
    rows = [
        row("gill", "1 caption", [[0.5, 0.7], [0.7, 0.9]]),  # seed means 0.6 and 0.8
        row("gill", "5 captions", [[0.5, 0.5], [0.5, 0.5]]),
        row("generator", "1 caption", [[0.25, 0.25]]),
    ]
    section = context_scores(rows)[-1]
    assert section.title == "VIST, here"
    assert section.paragraphs[0].startswith("2 cases, 2 seeds;")
    assert section.tables[0].head == ("image similarity", "1 caption", "5 captions")
    assert section.tables[0].rows == [
        ("gill", "0.700 (0.1414)", "0.500 (0.0000)"),
        ("generator", "0.250 (0.0000)", None),
    ]


@pytest.mark.parametrize(
    ("measure", "longer", "verdict"),
    [
        ("image_similarity", [0.5, 0.6], "better"),  # +0.35 and 0.05 of error
        ("image_similarity", [-0.1, 0.0], "worse"),
        ("lpips", [0.5, 0.6], "worse"),  # a distance: more is worse
        ("lpips", [-0.1, 0.0], "better"),
        ("image_similarity", [0.2, 0.8], "none"),  # +0.3 with an error of 0.3
        ("image_similarity", [0.2, 0.2], "none"),  # nothing, and no error either
    ],
)
def test_verdicts_need_two_errors_and_know_what_is_good(measure, longer, verdict):
    rows = [row("gill", c, [v], measure=measure) for c, v in (("1", [0.2, 0.2]), ("5", longer))]
    (section,) = context_effects(rows)
    assert section.tables[0].rows[0][-1] == verdict
    assert context_effects([]) == []


def test_the_gallery_shows_the_first_and_the_worst_of_the_longest_context():
    rows = [
        row("gill", "1 caption", [[0.1, 0.9, 0.9]]),
        row("gill", "5 captions", [[0.9, 0.5, 0.2], [0.9, 0.3, 0.4]]),
        row("truth", "1 caption", [[1.0, 1.0, 1.0]]),
    ]
    first, worst = context_gallery("vist", rows, 2)
    head = ("case", "text", "truth", "gill, 1 caption", "gill, 5 captions")
    assert first.tables[0].head == worst.tables[0].head == head
    assert [r[0] for r in first.tables[0].rows] == ["case 0", "case 1"]
    assert first.tables[0].rows[0][1] == "5 captions of 0"  # the longest text of the case
    assert first.tables[0].rows[1][2:] == (
        b"truth 1 caption 1", b"gill 1 caption 1", b"gill 5 captions 1",
    )  # fmt: skip
    assert [r[0] for r in worst.tables[0].rows] == ["case 2", "case 1"]
    assert len(context_gallery("vist", rows[2:], 2)) == 1  # without GILL nothing is the worst


def test_a_panel_for_each_measure_without_the_truth():
    rows = [row("gill", "1", [[0.2, 0.4]]), row("gill", "5", [[0.4, 0.6]]),
            row("truth", "1", [[1.0, 1.0]])]  # fmt: skip
    (axes,) = context_plot(rows).axes
    assert axes.get_title() == "image similarity"
    (line,) = [container[0] for container in axes.containers]
    assert line.get_ydata().tolist() == pytest.approx([0.3, 0.5])
    assert [t.get_text() for t in axes.get_legend().get_texts()] == ["gill"]
