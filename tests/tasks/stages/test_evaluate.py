"""The suites of evaluation on the tiny recipe, against plain computations where there is one."""

import json
import math

import pytest
import torch

from data.benchmarks.contexts import Case, Cases
from data.benchmarks.synthetic_contexts import told_stories
from gill.evaluation.images import frechet_distance
from tasks.config.evaluation import ContextsConfig, MetricNetworksConfig
from tasks.evaluation import context_suites
from tasks.evaluation.baselines import evaluated_models, slug
from tasks.evaluation.context_suites import context_states
from tasks.evaluation.generated_images import IMAGES, GenerationSuite
from tasks.evaluation.held_out import read_captions, read_held_out
from tasks.evaluation.metric_networks import MetricNetworks, as_pixels
from tasks.evaluation.prompt_scores import SCORES
from tasks.evaluation.stored import StoredImages
from tasks.parts.engine import load_engine
from tasks.tracking.stage_log import ConsoleLog


@pytest.fixture(scope="module")
def evaluated(tiny_run, tmp_path_factory):
    """Everything at once: all suites without outside files, two seeds, a metric network."""
    return tiny_run.run(
        "evaluate",
        tmp_path_factory.mktemp("evaluate"),
        suites=("captioning", "retrieval", "generation", "decisions", "synthetic_contexts"),
        image_seeds=2,
        metric_networks=MetricNetworksConfig(perceptual=True),
        contexts=ContextsConfig(cases=4, seeds=2),
    )


def test_all_suites_report(evaluated):
    _, metrics = evaluated
    for name in (
        "caption_meteor_exact", "retrieval_t2i_r1", "gill_image_image_similarity",
        "gill_image_image_similarity_sd", "gill_frechet_tiny_distance",
        "gill_perceptual_tiny_distance", "decision_macro_f1", "decision_score_threshold_macro_f1",
        "told_story_gill_5_captions_4_images_image_similarity",
        "told_dialogue_generator_10_rounds_image_similarity_sd",
    ):  # fmt: skip
        assert math.isfinite(metrics[name]), name
    assert metrics["told_story_truth_1_caption_image_similarity"] == pytest.approx(1.0, abs=1e-5)
    assert metrics["told_story_truth_1_caption_perceptual_tiny_distance"] == 0.0
    # Text-only models take no images.
    assert not any("generator_5_captions_4_images" in name for name in metrics)


def test_the_report_stands_beside_the_paper(evaluated):
    context, metrics = evaluated
    page = (context.out / "report.html").read_text()
    text = (context.out / "report.md").read_text()
    assert context.log.documents == {"report.html": page, "report.md": text}
    assert "| GILL | 0.581 | 0.612 | 0.641 | 0.702 | 0.696 | 0.693 |" in text
    assert "Stories whose cast is only shown" in text
    assert "VIST was not part of this run" in text
    assert "the worst" in text
    assert f"{metrics['told_story_gill_1_caption_image_similarity']:.3f}" in text
    assert page.count("<img") > 100
    words = told_stories(1).cases[0].contexts["5 captions"]
    assert all(sentence in page for sentence in words)  # they stand beside their images
    panels = context.log.figures["told_story"].axes
    assert [axes.get_title() for axes in panels] == [
        "image similarity",
        "perceptual tiny distance",
    ]
    assert len(panels[0].containers) == 4  # the truth is no baseline
    assert "<img" not in text


def test_a_killed_evaluation_keeps_what_was_sampled(evaluated, tiny_run):
    context, metrics = evaluated
    folders = context_suites.FOLDER, IMAGES, SCORES
    files = [p for name in folders for p in (context.out / name).iterdir()]
    assert len(files) > 30
    lost = {
        next(p for p in sorted(files) if p.name.startswith(name))
        for name in ("told_story-gill-", "linear_mapper-01001-", "scores-")
    }
    kept = {p: p.stat().st_mtime_ns for p in files if p not in lost}
    for path in lost:
        path.unlink()
    _, again = tiny_run.run(
        "evaluate",
        context.out,
        suites=("generation", "decisions", "synthetic_contexts"),
        image_seeds=2,
        metric_networks=MetricNetworksConfig(perceptual=True),
        contexts=ContextsConfig(cases=4, seeds=2),
    )
    assert all(path.exists() for path in lost)
    assert {p: p.stat().st_mtime_ns for p in kept} == kept
    assert again == {k: v for k, v in metrics.items() if k in again}


@pytest.fixture(scope="module")
def served(tiny_run, evaluated):
    """The engine of the evaluation, with the language model, and the images that it looks up."""
    context, _ = evaluated
    adapters, mapper = (
        tiny_run.artifacts["adapters"], tiny_run.artifacts["mapper"]
    )  # fmt: skip
    index = tiny_run.artifacts["index"]
    engine = load_engine(context.parts, context.runtime, adapters, mapper, index, prompts=True)
    images = tiny_run.artifacts["download"]
    return engine, StoredImages.of(images, tiny_run.artifacts["clip_features"]), images


def test_states_of_a_single_caption_are_the_stored_ones(tiny_run, served):
    """A context of one caption reads as the adapters read it when they stored its state."""
    engine, _, images = served
    adapters = tiny_run.artifacts["adapters"]
    rows = read_captions(images, adapters, "test")
    short = [i for i, c in enumerate(rows.captions) if len(c) < 20][:3] or [0]
    cases = [Case(rows.keys[i], None, {"one": (rows.captions[i][:20],)}) for i in short]
    made = context_states(engine, {"s": Cases(cases, {})}, ConsoleLog())["s", "one"]
    assert made.shape == (len(short), 2, 32)
    plain = engine.model.img_states(engine.model.tokenize([c.contexts["one"][0] for c in cases]))
    assert torch.allclose(made, plain, atol=1e-5)


def test_evaluated_models_share_one_interface(served, tmp_path):
    engine, stored, _ = served
    folder = tmp_path / "My Pipeline"
    engine.generator.pipeline.save_pretrained(folder)
    names = ["gill", "generator", "retrieval", "truth"]
    pipelines, mappers = [str(folder)], {"linear_mapper": engine.mapper}
    models = evaluated_models(engine, stored, names, pipelines, ConsoleLog(), mappers)
    assert [m.name for m in models] == [*names, "my_pipeline"]
    made = told_stories(2)
    states = torch.randn(2, 2, 32)
    for model in models:
        sample = model.prepare(made.cases, "5 captions", states)
        one, again, other = sample([1, 2]), sample([1, 2]), sample([3, 4])
        assert [p.tobytes() for p in one] == [p.tobytes() for p in again]
        changed = [p.tobytes() for p in one] != [p.tobytes() for p in other]
        assert changed == model.seeded, model.name
        assert model.reads(("text",))
        whole = made.cases[0].contexts["5 captions, 4 images"]
        assert model.reads(whole) == (model.name in {"gill", "retrieval", "truth"})


def test_fid_is_the_distance_of_its_networks_features(tiny_run, evaluated, served, tmp_path):
    """Any network stands for Inception here, whose weights are not at hand."""
    context, (engine, stored, images) = evaluated[0], served

    def network(images):
        return images.mean((2, 3))

    held_out = read_held_out(
        images,
        tiny_run.artifacts["clip_features"],
        tiny_run.artifacts["text_targets"],
        tiny_run.artifacts["adapters"],
    ).first(context.config.images)
    networks = MetricNetworks(stand_in=None, inception=network, lpips=None, clip=None)
    suite = GenerationSuite(engine, {}, held_out, stored, networks, held_out.targets[0])
    sets = suite.sample(context.config, tmp_path, ConsoleLog())[0]
    seed = context.config.seed * 100_003
    sampled = engine.sample(held_out.targets, [seed + i for i in range(len(held_out))])
    true = as_pixels(stored.opened(held_out.captions.keys), engine.generator.image_size)
    wanted = frechet_distance(network(sampled), network(true))
    assert suite.scores(sets)["own_text_encoder_fid"] == pytest.approx(wanted, rel=1e-4)


def test_the_contexts_are_written_down(evaluated):
    context, metrics = evaluated
    found = json.loads((context.out / "contexts.json").read_text())
    assert {r["suite"] for r in found["rows"]} == {"told_story", "shown_story", "told_dialogue"}
    first = found["rows"][0]
    name = f"{first['suite']}_{first['model']}_{slug(first['context'])}_image_similarity"
    assert first["mean"]["image_similarity"] == metrics[name]
