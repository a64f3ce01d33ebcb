"""The report as a whole: the order of its sections, the same page in the folder and the log."""

import io

import pytest
import torch
from PIL import Image
from trained_tiny import RecordingLog

from flows.recipes import tiny
from tasks.evaluation.context_scores import ContextScores
from tasks.evaluation.report import TITLE, Report


def small_file(shade):
    held = io.BytesIO()
    Image.new("RGB", (8, 8), (shade, 0, 0)).save(held, "PNG")
    return held.getvalue()


@pytest.fixture
def report(tmp_path):
    return Report(tiny().parts, tmp_path, RecordingLog())


def row(suite, model):
    values = {"image_similarity": torch.tensor([[0.5, 0.7]])}
    return ContextScores(
        suite, model, "1 caption", ["a", "b"], ["A", "B"], values, [small_file(9)] * 2
    )


def test_parts_and_the_papers_figures_stand_in_every_report(report, tmp_path):
    report.write({})
    text = (tmp_path / "report.md").read_text()
    page = (tmp_path / "report.html").read_text()
    assert text.startswith(f"# {TITLE}")
    assert "| language model | OPT-6.7B | tiny |" in text
    assert "| sampler steps, guidance | 50, 7.5 | " in text
    assert "The paper's findings" in text
    assert report.log.documents == {"report.md": text, "report.html": page}


def test_sections_come_in_the_order_of_reading(report, tmp_path):
    report.gallery("gallery", {"prompt": ["a cat"], "image": [small_file(3)]})
    report.contexts([row("vist", "gill"), row("told_story", "gill")])
    report.write({"caption_bleu_1": 0.5})
    text = (tmp_path / "report.md").read_text()
    titles = [line[3:] for line in text.splitlines() if line.startswith("## ")]
    assert titles == [
        "Captioning",
        "VIST: the last image of a story, published",
        "VIST, here",
        "Stories whose cast is told (embedded world), here",
        "Does context help?",
        "The paper's findings",
        "Held-out captions: images by what they are made from",
        "VIST: images",
        "VIST: the worst",
        "Stories whose cast is told (embedded world): images",
        "Stories whose cast is told (embedded world): the worst",
    ]
    assert set(report.log.figures) == {"vist", "told_story"}


def test_a_gallery_is_cut_to_its_shortest_column_and_to_a_dozen(report, tmp_path):
    report.worst({"prompt": [f"caption {i}" for i in range(20)], "similarity": [0.5] * 14})
    report.write({})
    text = (tmp_path / "report.md").read_text()
    assert "Held-out captions: the worst" in text
    assert sum(line.startswith("| caption ") for line in text.splitlines()) == 12
