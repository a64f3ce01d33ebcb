"""What is measured."""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self

from pydantic import Field, model_validator

from gill.settings import LARGEST_SEED, MOST, PAPER, setting
from tasks.config.base import PLAIN, STATISTICS, Config, Line, Name, Unique, contents

Suite = Literal[
    "captioning",
    "retrieval",
    "generation",
    "decisions",
    "synthetic_contexts",
    "vist",
    "visdial",
]
ContextModel = Literal["gill", "mappers", "generator", "retrieval", "truth"]
Round = Annotated[int, Field(ge=1, le=10)]  # a dialogue of VisDial has ten
# The files that a suite needs; those of all others come with the pairs.
FILES_OF_SUITE = {
    "vist": ("vist_stories", "vist_images"),
    "visdial": ("visdial_dialogues", "visdial_images"),
}


class MetricNetworksConfig(Config):
    """Networks that compare images beside the scorer; a path, or ``owner/repository/file``."""

    fid: str = contents("weights of the Inception of 2015, which FID is made with")
    lpips: str = contents("weights of torchvision's AlexNet, which LPIPS is made with")
    clip: Line = setting(
        "",
        "open_clip's model/pretraining, which similarities are made with",
        source="none: such files do not ship with the project",
    )
    scenes: bool = setting(
        False,
        "the scene reader, which finds what an image of the embedded world shows",
        source="off: only that world has truths",
    )
    perceptual: bool = setting(
        False,
        "the distance in the scorer's layers that stands in for LPIPS",
        source="off: it is comparable with no published figure",
    )


class ContextsConfig(Config):
    """Images made from a story or a dialogue: the suites synthetic_contexts, vist and visdial."""

    # The frozen generator alone reads the text of a context with its own encoder: in a story of
    # one caption the last one, otherwise all of them joined.
    models: Annotated[tuple[ContextModel, ...], Unique] = setting(
        ("gill", "mappers", "generator", "retrieval", "truth"),
        "that are compared; mappers: those trained beside GILL's",
        source=PAPER,
        min_length=1,
    )
    pipelines: Annotated[tuple[Name, ...], Unique] = setting(
        (), "further diffusers pipelines, a folder or hub name each", source=PLAIN
    )
    seeds: int = setting(
        3, "of each image", unit="seeds", source="the fewest that show a spread", ge=1, le=1000
    )
    cases: int = setting(
        100,
        "at most so many stories or dialogues of each suite",
        unit="cases",
        source="a round number: intervals of 10 points",
        ge=1,
        le=MOST,
    )
    rounds: Annotated[tuple[Round, ...], Unique] = setting(
        (1, 5, 10), "of a dialogue of VisDial", unit="rounds", source=PAPER, min_length=1
    )
    vist_stories: str = contents("the official story-in-sequence JSON")
    vist_images: str = contents("folder of VIST's images")
    visdial_dialogues: str = contents("the official JSON of version 1.0")
    visdial_images: str = contents("folder of VisDial's images")


def _count(default: int, description: str, unit: str, source: str, ge: int = 1) -> Any:
    return setting(default, description, unit=unit, source=source, ge=ge, le=MOST)


class EvaluateConfig(Config):
    """What is measured on the test split, and the budget of images."""

    suites: Annotated[tuple[Suite, ...], Unique] = setting(
        ("captioning", "retrieval", "generation", "decisions"),
        "that are run",
        source="those that need no further files",
        min_length=1,
    )
    metric_networks: MetricNetworksConfig = MetricNetworksConfig()
    contexts: ContextsConfig = ContextsConfig()
    sources: Annotated[tuple[Name, ...], Unique] = setting(
        (), "whose test pairs images are generated for; empty: of all", source=PLAIN
    )
    image_seeds: int = _count(1, "of each image of the suite generation", "seeds", PLAIN)
    retrieval_candidates: int = _count(
        500, "that recall is counted among", "pairs", "most of the embedded pack's test split"
    )
    hard_candidates: int = _count(
        0,
        "whose images recall is also counted among beside others that differ in one factor",
        "scenes",
        "none: only scenes have such candidates",
        ge=0,
    )
    captions: int = _count(500, "images that are captioned", "images", STATISTICS)
    max_new_tokens: int = _count(
        24, "of a caption", "tokens", "adapters.max_tokens without the [IMG] tokens"
    )
    images: int = _count(256, "that are generated for each model", "images", STATISTICS)
    decision_prompts: int = _count(
        256,
        "of these, with as many images each as the decision has votes",
        "prompts",
        STATISTICS,
    )
    gallery: int = _count(
        48, "prompts that the gallery shows", "prompts", "what a page shows at a glance", ge=0
    )
    seed: int = setting(
        1000,
        "of the generated images",
        source="arbitrary, and none that the decision trains with",
        ge=0,
        le=LARGEST_SEED,
    )

    @model_validator(mode="after")
    def _files_of_the_suites(self) -> Self:
        wanted = [name for suite in self.suites for name in FILES_OF_SUITE.get(suite, ())]
        missing = [f"evaluate.contexts.{n}" for n in wanted if not getattr(self.contexts, n)]
        if missing:
            raise ValueError(
                f"{' and '.join(missing)} must name the files of {', '.join(self.suites)}; set "
                "them, or leave the suite out of evaluate.suites"
            )
        return self
