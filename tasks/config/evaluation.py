"""What is measured."""

from __future__ import annotations

from typing import Literal

from gill.settings import PAPER, setting
from tasks.config.base import Config, contents

Suite = Literal[
    "captioning",
    "retrieval",
    "generation",
    "decisions",
    "synthetic_contexts",
    "vist",
    "visdial",
]
ContextModel = Literal["gill", "generator", "retrieval", "truth"]


class MetricNetworksConfig(Config):
    """Networks that compare images beside the scorer; a path, or ``owner/repository/file``."""

    fid: str = contents("weights of the Inception of 2015, which FID is made with")
    lpips: str = contents("weights of torchvision's AlexNet, which LPIPS is made with")
    clip: str = setting("", "open_clip's model/pretraining, which similarities are made with")
    perceptual: bool = setting(
        False, "the distance in the scorer's layers that stands in for LPIPS"
    )


class ContextsConfig(Config):
    """Images made from a story or a dialogue: the suites synthetic_contexts, vist and visdial."""

    # The frozen generator alone reads the text of a context with its own encoder: in a story of
    # one caption the last one, otherwise all of them joined.
    models: tuple[ContextModel, ...] = setting(
        ("gill", "generator", "retrieval", "truth"), "that are compared", source=PAPER
    )
    pipelines: tuple[str, ...] = setting(
        (), "further diffusers pipelines, a folder or hub name each"
    )
    seeds: int = setting(3, "of each image", unit="seeds", ge=1)
    cases: int = setting(
        100, "at most so many stories or dialogues of each suite", unit="cases", ge=1
    )
    rounds: tuple[int, ...] = setting((1, 5, 10), "of a dialogue of VisDial", source=PAPER)
    vist_stories: str = contents("the official story-in-sequence JSON")
    vist_images: str = contents("folder of VIST's images")
    visdial_dialogues: str = contents("the official JSON of version 1.0")
    visdial_images: str = contents("folder of VisDial's images")


class EvaluateConfig(Config):
    """What is measured on the test split, and the budget of images."""

    suites: tuple[Suite, ...] = setting(
        ("captioning", "retrieval", "generation", "decisions"), "that are run"
    )
    metric_networks: MetricNetworksConfig = MetricNetworksConfig()
    contexts: ContextsConfig = ContextsConfig()
    image_seeds: int = setting(1, "of each image of the suite generation", unit="seeds", ge=1)
    retrieval_candidates: int = setting(500, "that recall is counted among", unit="pairs", ge=1)
    captions: int = setting(500, "images that are captioned", unit="images", ge=1)
    max_new_tokens: int = setting(24, "of a caption", unit="tokens", ge=1)
    images: int = setting(256, "that are generated for each model", unit="images", ge=1)
    decision_prompts: int = setting(
        256,
        "of these, with as many images each as the decision has votes",
        unit="prompts",
        ge=1,
    )
    gallery: int = setting(48, "prompts that the gallery shows", unit="prompts", ge=0)
    seed: int = setting(1000, "of the generated images", source="arbitrary")
