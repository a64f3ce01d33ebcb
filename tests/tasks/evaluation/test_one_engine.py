"""Figures and labels come from the engine: a change of one of its methods changes them."""

import ast
from pathlib import Path

import pytest
import torch

from gill.inference.engine import GillEngine
from gill.inference.index import Match
from tasks.config.evaluation import ContextsConfig

ROOT = Path(__file__).parents[3]
SUITES = ("captioning", "retrieval", "generation", "decisions", "synthetic_contexts")


def evaluate(tiny_run, out, suites=SUITES):
    _, metrics = tiny_run.run(
        "evaluate",
        out,
        suites=suites,
        images=8,
        captions=4,
        decision_prompts=6,
        gallery=4,
        contexts=ContextsConfig(cases=2, seeds=1),
    )
    return metrics


@pytest.fixture(scope="module")
def untouched(tiny_run, tmp_path_factory):
    return evaluate(tiny_run, tmp_path_factory.mktemp("untouched"))


def flat(self, conditioning, seeds, **changes):
    """White images, whatever they are conditioned on."""
    size = self.generator.image_size
    return torch.ones(len(conditioning), 3, size, size)


def no_states(self, prompts, truncate_left=False):
    return torch.zeros(len(prompts), *self.adapters.img_embeddings.shape)


def first_of_index(self, states, count=1, without=None):
    return [[Match(self.index.keys[0], 0.5)] for _ in states]


def mean_conditioning(self, states, mapper=None):
    mapped = (mapper or self.mapper)(states, self.adapters.img_embeddings)
    return mapped.mean((0, 1), keepdim=True).expand_as(mapped)


def common_words(self, images, max_new_tokens):
    return ["woman, clothes, clip art of clothing"] * len(images)


def always_retrieve(self, states, model=None):
    return torch.tensor([0.0, 1.0]).expand(len(states), 2)


# Each method, its replacement, the suites that it serves, and a figure of each that must change.
CHANGES = [
    ("sample", flat, ("generation", "synthetic_contexts"),
     ("gill_image_image_similarity", "own_text_encoder_image_image_similarity",
      "told_story_gill_1_caption_image_similarity",
      "told_story_generator_1_caption_image_similarity")),
    ("conditioning", mean_conditioning, ("generation",),
     ("gill_image_image_similarity", "linear_mapper_image_image_similarity")),
    ("img_states", no_states, ("synthetic_contexts",),
     ("told_story_gill_1_caption_image_similarity",)),
    ("retrieve", first_of_index, ("decisions", "synthetic_contexts"),
     ("retrieved_image_text_similarity", "told_story_retrieval_1_caption_image_similarity")),
    ("caption", common_words, ("captioning",),
     ("caption_bleu_1", "caption_meteor_exact")),
]  # fmt: skip


@pytest.mark.parametrize(
    ("method", "replacement", "suites", "figures"), CHANGES, ids=[change[0] for change in CHANGES]
)
def test_a_changed_method_changes_the_figures(
    untouched, tiny_run, tmp_path, monkeypatch, method, replacement, suites, figures
):
    monkeypatch.setattr(GillEngine, method, replacement)
    changed = evaluate(tiny_run, tmp_path, suites)
    assert [name for name in figures if changed[name] == untouched[name]] == []


def test_a_changed_decision_changes_its_figures(tiny_run, tmp_path, monkeypatch):
    monkeypatch.setattr(GillEngine, "decide", always_retrieve)
    metrics = evaluate(tiny_run, tmp_path, ("decisions",))
    assert metrics["decision_macro_f1"] == metrics["decision_always_retrieve_macro_f1"]
    _, trained = tiny_run.run("decision", tmp_path / "decision")
    assert trained["macro_f1"] == trained["always_retrieve_macro_f1"]


@pytest.mark.parametrize(
    ("method", "replacement"), [("sample", flat), ("retrieve", first_of_index)]
)
def test_a_changed_method_changes_the_decision_labels(
    tiny_run, tmp_path, monkeypatch, method, replacement
):
    def labels(out):
        out.mkdir()
        tiny_run.run("decision", out, balance=False)
        return (out / "labels.json").read_text()

    before = labels(tmp_path / "before")
    monkeypatch.setattr(GillEngine, method, replacement)
    assert labels(tmp_path / "after") != before


# --- no other code does what the engine does

FORBIDDEN = {
    ("generator", "generate"): "sample through the engine",
    ("index", "nearest"): "retrieve through the engine",
    ("decision", "probabilities"): "decide through the engine",
    ("model", "probabilities"): "decide through the engine",
}


def receiver(node):
    """The last name of what a method is called on: ``a.b.generator.generate`` -> ``generator``."""
    value = node.func.value
    name = getattr(value, "attr", None) or getattr(value, "id", None)
    return (name or "").lstrip("_")


def offences(source):
    """Lines at which a module does what is the engine's, or adds E_img to states itself."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
            if why := FORBIDDEN.get((receiver(node), node.func.attr)):
                yield node.lineno, why
            if node.func.attr == "transform":
                yield node.lineno, "a mapper's forward adds E_img to the states"
        if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add):
            names = {
                getattr(n, "id", getattr(n, "attr", ""))
                for n in (*ast.walk(node.left), *ast.walk(node.right))
            }
            if {"states", "img_states"} & names and {
                "img", "img_tokens", "img_embeddings", "embeddings"
            } & names:  # fmt: skip
                yield node.lineno, "a mapper's forward adds E_img to the states"


def test_nothing_beside_the_engine_samples_retrieves_decides_or_adds_embeddings():
    own = {ROOT / "gill" / "mapper.py", *(ROOT / "gill" / "inference").glob("*.py")}
    own.add(ROOT / "tasks" / "parts" / "trial.py")  # tries a part alone, before there is an engine
    for package in ("gill", "tasks", "flows", "data"):
        for path in set((ROOT / package).rglob("*.py")) - own:
            if "embedded" in path.as_posix():  # makes the generator, before there is an engine
                continue
            found = list(offences(path.read_text()))
            assert not found, f"{path}: {found}"


@pytest.mark.parametrize(
    "line",
    [
        "engine.generator.generate(x, seeds, 1.0, 5)",
        "self.index.nearest(vectors)",
        "decision.probabilities(states)",
        "x = states.float() + img.to(device)",
        "mapper(img_states + self.adapters.img_tokens.weight)",
        "mapper.transform(states)",
    ],
)
def test_the_rule_sees_what_it_forbids(line):
    assert list(offences(line))
