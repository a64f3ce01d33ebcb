"""The suites of evaluation in which an image is made from a story or a dialogue."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import torch
from PIL import Image
from torch import Tensor

from data.artifacts import write_json
from data.benchmarks.contexts import Cases, ContextError
from data.benchmarks.synthetic_contexts import Described, described, dialogues, stories
from data.benchmarks.visdial import read_visdial
from data.benchmarks.vist import read_vist
from data.shards import ShardError, read_table, shard_names, write_shard
from gill.evaluation.images import paired_similarity
from gill.inference.prompts import ImgTokens, Prompt, PromptReader
from gill.model import GillModel
from tasks.config.evaluation import ContextsConfig, EvaluateConfig
from tasks.evaluation.answers import SHOWN, Answers, webp
from tasks.evaluation.baselines import EvaluatedModel, evaluated_models, slug
from tasks.evaluation.metric_networks import MetricNetworks, as_pixels
from tasks.parts.loading import load_language, load_vision
from tasks.runner.context import StageContext
from tasks.stages import adapters as adapters_stage
from tasks.stages.download import IMAGES
from tasks.tracking.memory import release_memory

FOLDER = "contexts"
SIMILARITY = "image_similarity"
_READ_TOGETHER = 16


@dataclass(frozen=True)
class Row:
    """A model on a context of a suite.

    Attributes:
        values: for each measure ``(seeds, cases)``. keys: the cases. texts: their contexts' words.
        images: of the first seed, as small files.
    """

    suite: str
    model: str
    context: str
    keys: list[str]
    texts: list[str]
    values: dict[str, Tensor]
    images: list[bytes]

    def mean(self, measure: str) -> float:
        """Mean over cases and seeds."""
        return float(self.values[measure].mean())

    def deviation(self, measure: str) -> float:
        """Standard deviation, over seeds, of the mean over cases; 0 with one seed."""
        means = self.values[measure].mean(1)
        return float(means.std()) if len(means) > 1 else 0.0


def suites(context: StageContext) -> dict[str, Cases]:
    """The stories and dialogues of the suites that a recipe names.

    Raises:
        ContextError: a suite has no usable case, or its files are not given.
    """
    config: EvaluateConfig = context.config
    chosen = config.contexts
    found: dict[str, Cases] = {}
    if "synthetic_contexts" in config.suites:
        images, skipped = described_images(context)
        for name, make in (("synthetic_story", stories), ("synthetic_dialogue", dialogues)):
            made = make(images, chosen.cases)
            found[name] = Cases(made.cases, dict(Counter(made.skipped) + skipped))
    if "vist" in config.suites:
        paths = _given(chosen, "vist_stories", "vist_images")
        found["vist"] = read_vist(*paths, chosen.cases)
    if "visdial" in config.suites:
        paths = _given(chosen, "visdial_dialogues", "visdial_images")
        found["visdial"] = read_visdial(*paths, chosen.rounds, chosen.cases)
    for name, made in found.items():
        context.log.note(f"{name}: {len(made.cases)} cases, skipped {dict(made.skipped) or 'none'}")
        if not made.cases:
            raise ContextError(
                f"{name} has no usable case ({dict(made.skipped)}); give files with stories whose "
                "images are there, or leave the suite out of evaluate.suites"
            )
    return found


def _given(config: ContextsConfig, *names: str) -> tuple[Path, Path]:
    paths = [str(getattr(config, name)) for name in names]
    missing = [f"evaluate.contexts.{n}" for n, p in zip(names, paths, strict=True) if not p]
    if missing:
        raise ContextError(f"{' and '.join(missing)} must name the files of this suite")
    return Path(paths[0]), Path(paths[1])


def described_images(context: StageContext) -> tuple[list[Described], Counter[str]]:
    """The images of the test split with the attributes in their captions."""
    folder = context.inputs["download"].file(IMAGES)
    found: list[Described] = []
    skipped: Counter[str] = Counter()
    for name in shard_names(folder, "test"):
        for row in read_table(folder / name, ["key", "caption", "image"]).to_pylist():
            item = described(row["key"], row["caption"], row["image"])
            if isinstance(item, str):
                skipped[item] += 1
            else:
                found.append(item)
    return found, skipped


def context_states(
    context: StageContext, found: Mapping[str, Cases]
) -> dict[tuple[str, str], Tensor]:
    """[IMG] states ``(cases, r, llm_dim)`` after every context of every suite."""
    language = load_language(context.parts.language, context.runtime)
    model = GillModel(language, adapters_stage.load(context.inputs["adapters"], language))
    reader = PromptReader(model, load_vision(context.parts.vision, context.runtime))
    states: dict[tuple[str, str], Tensor] = {}
    for suite, made in found.items():
        for name in made.cases[0].contexts:
            parts = []
            for start in range(0, len(made.cases), _READ_TOGETHER):
                prompts = [
                    [*(p if isinstance(p, str) else p.open() for p in case.contexts[name]),
                     ImgTokens()]
                    for case in made.cases[start : start + _READ_TOGETHER]
                ]  # fmt: skip
                parts.append(_img_states(model, reader, prompts))
                context.log.progress(
                    start + len(prompts), len(made.cases), f"contexts of {suite} read ({name})"
                )
            states[suite, name] = torch.cat(parts)
    return states


@torch.no_grad()
def _img_states(model: GillModel, reader: PromptReader, prompts: Sequence[Prompt]) -> Tensor:
    embeddings, mask = reader.prepare(prompts, room=0, truncate_left=True)
    hidden, _ = model.language.hidden(embeddings, mask)
    return hidden[:, -len(model.adapters.img_tokens) :].float().cpu()


def score_contexts(context: StageContext) -> list[Row]:
    """Draw and score every suite, model, context and seed; what an earlier process did is kept."""
    config: EvaluateConfig = context.config
    found = suites(context)
    states = context_states(context, found)
    release_memory()
    answers = Answers.load(context)
    metric_networks = MetricNetworks.load(config.metric_networks, answers.vision, context.runtime)
    models = evaluated_models(answers, config.contexts.models, config.contexts.pipelines)
    rows = []
    for suite, made in found.items():
        true = _true(answers, made)
        given = made.cases[0].contexts
        work = [
            (model, name)
            for model in models
            for name in [n for n, pieces in given.items() if model.reads(pieces)][
                : 1 if model.blind else None
            ]
        ]
        for done, (model, name) in enumerate(work, 1):
            paths = _sample_and_score(
                context,
                answers,
                metric_networks,
                model,
                suite,
                name,
                made,
                states[suite, name],
                true,
            )
            row = _read(suite, model.name, name, made, paths)
            if row.keys != [case.key for case in made.cases]:
                raise ShardError(
                    f"{paths[0]} holds other cases than {suite} has now; delete "
                    f"{context.out / FOLDER} and run the stage again"
                )
            rows.append(row)
            context.log.progress(done, len(work), f"contexts of {suite} drawn")
    write_json(
        context.out / "contexts.json",
        {"skipped": {suite: dict(made.skipped) for suite, made in found.items()},
         "rows": [{"suite": r.suite, "model": r.model, "context": r.context, "cases": len(r.keys),
                   "mean": {m: r.mean(m) for m in r.values},
                   "deviation_over_seeds": {m: r.deviation(m) for m in r.values}}
                  for r in rows]},
    )  # fmt: skip
    return rows


@dataclass(frozen=True)
class TrueImages:
    """The true images of a suite: pixels ``(n, 3, s, s)`` and the scorer's unit vectors."""

    pixels: Tensor
    seen: Tensor


def _true(answers: Answers, made: Cases) -> TrueImages:
    images = [case.target.open() for case in made.cases]
    return TrueImages(as_pixels(images, answers.generator.image_size), _seen(answers, images))


def _seen(answers: Answers, images: Sequence[Image.Image]) -> Tensor:
    scorer = answers.vision
    parts = [
        scorer.project(scorer.pooled(scorer.prepare(images[start : start + 64]))).cpu()
        for start in range(0, len(images), 64)
    ]
    return torch.cat(parts)


def _sample_and_score(
    context: StageContext,
    answers: Answers,
    metric_networks: MetricNetworks,
    model: EvaluatedModel,
    suite: str,
    name: str,
    made: Cases,
    states: Tensor,
    true: TrueImages,
) -> list[Path]:
    config: EvaluateConfig = context.config
    seeds = range(config.contexts.seeds if model.seeded else 1)
    stem = f"{suite}-{slug(model.name)}-{slug(name)}"
    paths = [context.out / FOLDER / f"{stem}-{seed:05d}.parquet" for seed in seeds]
    if all(path.exists() for path in paths):
        return paths
    sample = model.prepare(made.cases, name, states)
    for seed, path in zip(seeds, paths, strict=True):
        if path.exists():
            continue
        # The same seed for a case in every context and model, so that differences are paired.
        first = (config.seed + seed) * 100_003
        images = sample([first + i for i in range(len(made.cases))])
        values = {SIMILARITY: paired_similarity(_seen(answers, images), true.seen)}
        values |= metric_networks.pairs(as_pixels(images, true.pixels.shape[-1]), true.pixels)
        table = {
            "key": [case.key for case in made.cases],
            **{measure: v.numpy().astype(np.float32) for measure, v in values.items()},
            "image": pa.array([webp(p, SHOWN) for p in images] if seed == 0 else
                                [None] * len(images), pa.binary()),
        }  # fmt: skip
        write_shard(path, pa.table(table))
    return paths


def _read(suite: str, model: str, name: str, made: Cases, paths: Sequence[Path]) -> Row:
    tables = [read_table(path) for path in paths]
    measures = [n for n in tables[0].column_names if n not in {"key", "image"}]
    values = {m: torch.tensor(np.stack([t.column(m).to_numpy() for t in tables])) for m in measures}
    keys, images = (tables[0].column(n).to_pylist() for n in ("key", "image"))
    pieces = [case.contexts[name] for case in made.cases]
    texts = [" / ".join(p for p in given if isinstance(p, str)) for given in pieces]
    return Row(suite, model, name, keys, texts, values, images)


def context_metrics(rows: Sequence[Row]) -> dict[str, float]:
    """Means, deviations over seeds, and the differences that the paper's findings rest on."""
    metrics: dict[str, float] = {}
    for row in rows:
        for measure in row.values:
            name = f"{row.suite}_{row.model}_{slug(row.context)}_{measure}"
            metrics[name], metrics[f"{name}_sd"] = row.mean(measure), row.deviation(measure)
    for found in differences(rows):
        metrics[found.name], metrics[f"{found.name}_se"] = found.mean, found.error
    return metrics


@dataclass(frozen=True)
class Difference:
    """A paired difference over cases, seeds averaged, with its standard error over the cases."""

    name: str
    suite: str
    what: str
    measure: str
    mean: float
    error: float


def differences(rows: Sequence[Row]) -> list[Difference]:
    """Each model's longer contexts against its first, and GILL against the generator alone."""
    by_model: defaultdict[tuple[str, str], list[Row]] = defaultdict(list)
    for row in rows:
        by_model[row.suite, row.model].append(row)
    found = []
    for (suite, model), group in by_model.items():
        if model == "truth":
            continue
        for row in group[1:]:
            name = f"{suite}_{model}_{slug(row.context)}_minus_{slug(group[0].context)}"
            what = f"{model}: {row.context} - {group[0].context}"
            found += _differences(name, what, row, group[0])
        if model == "generator":
            ours = {row.context: row for row in by_model.get((suite, "gill"), [])}
            for row in group:
                if row.context in ours:
                    name = f"{suite}_gill_minus_generator_{slug(row.context)}"
                    what = f"gill - generator, {row.context}"
                    found += _differences(name, what, ours[row.context], row)
    return found


def _differences(name: str, what: str, a: Row, b: Row) -> list[Difference]:
    found = []
    for measure in a.values:
        values = a.values[measure].mean(0) - b.values[measure].mean(0)
        error = float(values.std()) / len(values) ** 0.5 if len(values) > 1 else 0.0
        found.append(
            Difference(f"{name}_{measure}", a.suite, what, measure, float(values.mean()), error)
        )
    return found
