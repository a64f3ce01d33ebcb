"""Stage 8: held-out captioning, retrieval, generation, decisions and contexts, with a gallery."""

from __future__ import annotations

from typing import Any

from data.artifacts import (
    ClipFeatures,
    Evaluation,
    ImageShards,
    RetrievalIndex,
    TextTargets,
    TrainedAdapters,
    TrainedDecision,
    TrainedMapper,
)
from data.io.atomic import write_json
from data.shards import AlignedShards
from gill.inference.engine import GillEngine
from gill.mapper import Mapper
from tasks.config.evaluation import EvaluateConfig
from tasks.evaluation.baselines import evaluated_models
from tasks.evaluation.caption_suites import score_captioning, score_retrieval
from tasks.evaluation.context_cases import read_cases
from tasks.evaluation.context_scores import context_metrics
from tasks.evaluation.context_suites import ContextScorer, context_states, score_contexts
from tasks.evaluation.hard_candidates import score_hard_candidates
from tasks.evaluation.held_out import mean_target, read_held_out
from tasks.evaluation.held_out_suites import Columns, HeldOutSuites
from tasks.evaluation.metric_networks import MetricNetworks
from tasks.evaluation.report import Report
from tasks.evaluation.stored import StoredImages
from tasks.parts.engine import load_engine
from tasks.parts.identity import shipped_digests
from tasks.parts.trained_mapper import load_mapper
from tasks.runner.context import StageContext
from tasks.runner.stage import StageDeclaration
from tasks.tracking.memory import release_memory


def _identity(config: EvaluateConfig) -> dict[str, Any]:
    """The weights of the scene reader, which no other part tells of."""
    return {"scene_reader": shipped_digests("reader")} if config.metric_networks.scenes else {}


STAGE = StageDeclaration(
    version=5,
    description="Held-out figures and the gallery",
    headlines=("retrieval_t2i_r1", "retrieval_t2i_r10", "caption_cider", "decision_macro_f1"),
    parts=("language", "vision", "generator"),
    splits=lambda config: ("test", "train") if "captioning" in config.suites else ("test",),
    identify=_identity,
)
HELD_OUT_SUITES = ("captioning", "retrieval", "generation", "decisions")


def run(
    context: StageContext[EvaluateConfig],
    images: ImageShards,
    features: ClipFeatures,
    targets: TextTargets,
    adapters: TrainedAdapters,
    mapper: TrainedMapper,
    index: RetrievalIndex,
    decision: TrainedDecision,
) -> Evaluation:
    """Run the suites that the recipe names.

    Writes ``metrics.json``, ``report.html``, ``report.md`` and what the suites write; the gallery
    goes to MLflow.
    """
    config, log = context.config, context.log
    chosen, metrics = set(config.suites), dict[str, float]()
    cases = read_cases(config, log)
    engine = load_engine(
        context.parts,
        context.runtime,
        adapters,
        mapper,
        index,
        decision,
        prompts="captioning" in chosen or bool(cases),
    )
    report, stored = Report(context.parts, context.out, log), StoredImages.of(images, features)
    if chosen & set(HELD_OUT_SUITES):
        held_out = read_held_out(images, features, targets, adapters)
    if "captioning" in chosen:
        metrics |= score_captioning(config, engine, held_out, _captions(images), context.out, log)
        log.metrics(metrics, 0)
    states = context_states(engine, cases, log)
    engine = engine.for_states()
    release_memory()  # of the language model: all prompts are read

    if cases or "generation" in chosen:
        mappers = _baselines(mapper, engine)
        networks = MetricNetworks.load(config.metric_networks, engine.vision, context.runtime)
    if "retrieval" in chosen:
        metrics |= score_retrieval(engine, held_out.first(config.retrieval_candidates))
        if config.hard_candidates:
            described = held_out.with_truth().first(config.hard_candidates)
            metrics |= score_hard_candidates(engine, described)
    if chosen & {"generation", "decisions"}:
        mean = mean_target(targets)
        suites = HeldOutSuites(config, engine, held_out, stored, mean, context.out, log)
        galleries: dict[str, Columns] = {}
        if "decisions" in chosen:
            scores, galleries["decisions"] = suites.decisions(decision.manifest())
            metrics |= scores
        if "generation" in chosen:
            found = suites.generation(mappers, networks, report)
            metrics |= found[0]
            galleries["gallery"] = found[1]
        for name, columns in galleries.items():
            log.table(name, columns)
            report.gallery(name, columns)
    if cases:
        chosen_models, pipelines = config.contexts.models, config.contexts.pipelines
        models = evaluated_models(engine, stored, chosen_models, pipelines, log, mappers)
        scorer = ContextScorer(engine, networks, context.out)
        context_scores = score_contexts(config, cases, states, models, scorer, log)
        metrics |= context_metrics(context_scores)
        report.contexts(context_scores)
    write_json(context.out / Evaluation.METRICS, metrics)
    report.write(metrics)
    return Evaluation.made(context.out, metrics)


def _captions(images: ImageShards) -> list[str]:
    """The training captions."""
    rows = AlignedShards({images.folder: ["caption"]}, "train").all()
    return [str(caption) for caption in rows["caption"]]


def _baselines(mapper: TrainedMapper, engine: GillEngine) -> dict[str, Mapper]:
    """The mappers that were trained beside the engine's, by name."""
    kinds = dict.fromkeys(kind for kind in mapper.baseline_kinds if kind != mapper.mapper_kind)
    return {f"{kind}_mapper": load_mapper(mapper, engine.device, kind) for kind in kinds}
