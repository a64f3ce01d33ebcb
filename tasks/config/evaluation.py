"""What is measured."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from tasks.config.base import Config, contents


class MetricNetworksConfig(Config):
    """Networks that compare images beside the scorer; a path, or ``owner/repository/file``."""

    fid: str = contents()  # the Inception of 2015
    lpips: str = contents()  # torchvision's AlexNet
    clip: str = ""  # open_clip's model/pretraining
    perceptual: bool = False  # the distance in the scorer's layers that stands in for LPIPS


Suite = Literal["captioning", "retrieval", "generation", "decisions", "study", "vist", "visdial"]


class ContextsConfig(Config):
    """Images made from a story or a dialogue: the suites study, vist and visdial."""

    # The frozen generator alone reads the text of a context with its own encoder: in a story of
    # one caption the last one, otherwise all of them joined.
    models: tuple[Literal["gill", "generator", "retrieval", "truth"], ...] = (
        "gill",
        "generator",
        "retrieval",
        "truth",
    )
    pipelines: tuple[str, ...] = ()  # further diffusers pipelines, a folder or hub name each
    seeds: int = Field(3, ge=1)
    cases: int = Field(100, ge=1)  # at most so many stories or dialogues of each suite
    rounds: tuple[int, ...] = (1, 5, 10)  # of a dialogue of VisDial
    vist_stories: str = contents()  # the official story-in-sequence JSON
    vist_images: str = contents()
    visdial_dialogues: str = contents()  # the official JSON of version 1.0
    visdial_images: str = contents()


class EvaluateConfig(Config):
    """What is measured on the test split, and the budget of images."""

    suites: tuple[Suite, ...] = ("captioning", "retrieval", "generation", "decisions")
    metric_networks: MetricNetworksConfig = MetricNetworksConfig()
    contexts: ContextsConfig = ContextsConfig()
    image_seeds: int = Field(1, ge=1)
    retrieval_candidates: int = 500
    captions: int = 500
    max_new_tokens: int = 24
    images: int = 256
    decision_prompts: int = 256  # of these, with as many images each as the decision has votes
    gallery: int = 48
    seed: int = 1000
