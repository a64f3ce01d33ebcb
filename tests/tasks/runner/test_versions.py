"""Changed stage code is noticed: raise the stage's version, or say that its results stay the same.

No model is loaded: code is read and hashed.
"""

import re
import shutil

import pytest

from tasks.paths import ROOT
from tasks.runner import versions
from tasks.runner.names import stage_names
from tasks.runner.registry import stage_named
from tasks.runner.versions import change, described, read

EVERY = set(stage_names())


@pytest.mark.parametrize("name", stage_names())
def test_code_is_as_recorded(name):
    found = change(read().get(name, {}), described(name))
    assert not found, (
        f"what bears on {name} changed: {found}. If its results change, raise the version in "
        f"tasks/stages/{name}.py. Then `python -m tasks.runner.versions accept {name}` and commit."
    )


def test_a_version_read_is_the_version_declared():
    for name in ("index", "mapper"):
        assert described(name)["version"] == stage_named(name).declared.version


# What is edited, how, and the stages whose results it changes. The fields of a configuration are
# not among them: their values are in the fingerprint.
EDITS = {
    "R@k": (
        "gill/evaluation/retrieval.py", r"position < k\b", "position <= k",
        {"adapters", "joint", "evaluate"},
    ),
    "FID's network": (
        "gill/backbones/metric_networks.py", r"def load_inception\(.*?\n    return ",
        r"\g<0>None or ", {"evaluate"},
    ),
    "LPIPS's network": (
        "gill/backbones/metric_networks.py", r"def load_lpips\(.*?\n    return ",
        r"\g<0>None or ", {"evaluate"},
    ),
    "attention": (
        "gill/backbones/language.py", r'= "eager"', '= "sdpa"',
        {"adapters", "joint", "imported", "decision", "evaluate"},
    ),
    "sampler's seeds": (
        "gill/backbones/image_generator.py", r"manual_seed\(s\)", "manual_seed(s + 1)",
        {"decision", "evaluate"},
    ),
    "tensors for the vision tower": (
        "gill/backbones/vision.py", r"(def prepare_tensor\(.*?)bicubic", r"\1bilinear",
        {"decision", "evaluate"},
    ),
    "packing": (
        "gill/packing.py", r"i \+ width, count", "i + width, count - 1",
        {"adapters", "joint", "imported", "decision", "evaluate"},
    ),
    "the mapper's forward": (
        "gill/mapper.py", r"(def mapper_input\(.*?) \+ ", r"\1 - ",
        # The stage adapters shares its training with joint.
        {"adapters", "mapper", "joint", "imported", "decision", "evaluate"},
    ),
    "the decision's threshold": (
        "gill/evaluation/decisions.py", r"score >= threshold", "score > threshold",
        {"decision", "evaluate"},
    ),
    "scales of 8 bits": (
        "data/quantization.py", r"/ 127\)", "/ 126)", {"text_targets"},
    ),
    "the loader's order": (
        "data/loader.py", r"\[self\.seed, epoch\]", "[epoch, self.seed]",
        {"adapters", "joint", "mapper"},
    ),
    "a worker's seeds": (
        "tasks/runner/worker.py", r"    import torch\n", "    import torch\n    torch.seed()\n",
        EVERY,
    ),
}  # fmt: skip


@pytest.fixture(scope="module")
def tree(tmp_path_factory):
    """A copy of the code, and what is recorded of it."""
    root = tmp_path_factory.mktemp("tree")
    for package in ("tasks", "gill", "data"):
        shutil.copytree(
            ROOT / package, root / package, ignore=shutil.ignore_patterns("embedded", "__pycache__")
        )
    return root, {name: described(name, root) for name in stage_names()}


def asked(tree):
    root, recorded = tree
    return {name for name in stage_names() if change(recorded[name], described(name, root))}


@pytest.mark.slow
@pytest.mark.parametrize("edit", EDITS)
def test_an_edit_asks_about_the_stages_whose_results_it_changes(tree, edit):
    file, old, new, stages = EDITS[edit]
    path = tree[0] / file
    text = path.read_text()
    changed = re.sub(old, new, text, count=1, flags=re.S)
    assert changed != text, f"{old} is not in {file} any more; name its new place here"
    path.write_text(changed)
    try:
        assert asked(tree) == stages
    finally:
        path.write_text(text)


@pytest.mark.parametrize(
    ("file", "addition"),
    [
        ("gill/losses.py", "# a comment\n"),
        ("gill/losses.py", "def unused() -> int:\n    return 1\n"),
        ("tasks/tracking/stage_log.py", "print()\n"),
        ("flows/cli.py", "print()\n"),
    ],
)
def test_what_bears_on_no_result_asks_about_nothing(tree, file, addition):
    path = tree[0] / file
    text = path.read_text() if path.exists() else None
    path.parent.mkdir(exist_ok=True)
    path.write_text((text or "") + addition)
    assert asked(tree) == set()
    if text is not None:
        path.write_text(text)


def test_a_file_that_the_code_names_counts(tree):
    """Such as the template of a report."""
    root, _ = tree
    code, page = root / "gill" / "evaluation" / "retrieval.py", root / "gill/evaluation/page.txt"
    text = code.read_text()
    page.write_text("one")
    code.write_text(
        re.sub(
            r"\ndef recall\((.*?)    found",
            r'\ndef recall(\1    "page.txt"\n    found',
            text,
            flags=re.S,
        )
    )
    try:
        before = described("evaluate", root)
        page.write_text("two")
        assert change(before, described("evaluate", root)).modules == ("gill.evaluation.retrieval",)
    finally:
        code.write_text(text)


def test_a_change_is_accepted_for_one_stage_alone(monkeypatch, tmp_path, capsys):
    record = tmp_path / "versions.json"
    monkeypatch.setattr(versions, "RECORD", record)
    monkeypatch.setattr("sys.argv", ["versions", "accept", "mapper"])
    assert versions.main() == 1  # the others are still asked about
    assert set(read()) == {"mapper"}
    assert "mapper: recorded version 0 -> 2" in capsys.readouterr().out
    monkeypatch.setattr("sys.argv", ["versions", "accept", "all"])
    assert versions.main() == 0
    assert set(read()) == EVERY
