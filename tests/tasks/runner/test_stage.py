"""A stage is read from the signature of its function; what is no stage says why."""

import pytest

from data.artifacts import ClipFeatures, ImageShards, TrainedAdapters
from tasks.config.data import IndexConfig
from tasks.runner.context import StageContext
from tasks.runner.stage import Stage, StageCall, StageDeclaration, StageError

DECLARED = StageDeclaration(version=1, description="A test")


def good(
    context: StageContext[IndexConfig], images: ImageShards, features: ClipFeatures
) -> TrainedAdapters:
    return TrainedAdapters.made(context.out, {"given": float(images is not features)})


def test_the_signature_says_what_it_takes_and_makes():
    stage = Stage.of("good", good, DECLARED)
    assert stage.config is IndexConfig
    assert stage.needs == {"images": ImageShards, "features": ClipFeatures}
    assert stage.makes is TrainedAdapters


def no_context(images: ImageShards) -> TrainedAdapters: ...


def untyped(context, images: ImageShards) -> TrainedAdapters: ...


def nothing() -> TrainedAdapters: ...


def bare(context: StageContext) -> TrainedAdapters: ...


def takes_a_path(context: StageContext[IndexConfig], folder: str) -> TrainedAdapters: ...


def takes_anything(context: StageContext[IndexConfig], images) -> TrainedAdapters: ...


def makes_a_number(context: StageContext[IndexConfig]) -> float: ...


def makes_nothing(context: StageContext[IndexConfig]): ...


@pytest.mark.parametrize(
    ("run", "why"),
    [
        *((run, r"first parameter of x\.run must be a StageContext\[\.\.\.\]")
          for run in (no_context, untyped, nothing, bare)),
        (takes_a_path, "takes and returns artifacts, not <class 'str'>"),
        (takes_anything, "takes and returns artifacts, not None"),
        (makes_a_number, "takes and returns artifacts, not <class 'float'>"),
        (makes_nothing, "takes and returns artifacts, not None"),
    ],
)  # fmt: skip
def test_what_is_no_stage_says_why(run, why):
    with pytest.raises(StageError, match=why):
        Stage.of("x", run, DECLARED)


def test_a_text_encoder_is_the_generators():
    declared = StageDeclaration(1, "x", parts=("vision", "text_encoder"))
    assert declared.whole_parts == ("vision", "generator")


@pytest.mark.parametrize(
    ("changes", "computes"),
    [({}, False), ({"parts": ("vision",)}, True), ({"data_parallel": True}, True)],
)
def test_what_trains_or_uses_a_part_is_worth_a_process(changes, computes):
    assert StageDeclaration(1, "x", **changes).computes == computes


def test_a_call_gives_each_input_by_its_name(tmp_path):
    images, features = (kind("s", "f", tmp_path) for kind in (ImageShards, ClipFeatures))
    context = StageContext(IndexConfig(), None, None, tmp_path / "good" / "f.partial", None)
    call = StageCall(Stage.of("good", good, DECLARED), context, {
        "features": features, "images": images,
    })  # fmt: skip
    made = call()
    assert (made.stage, made.fingerprint, made.metrics) == ("good", "f", {"given": 1.0})
