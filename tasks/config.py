"""Configuration of the frozen parts and of each stage: frozen, typed, unknown keys refused.

A field made with ``neutral`` has no bearing on the result, so it is left out of fingerprints.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from data.artifacts import sha256_of

Precision = Literal["float32", "bfloat16", "float16"]


class Frozen(BaseModel):
    """Base of every configuration."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    def bearing(self) -> dict[str, Any]:
        """The fields that bear on the result."""
        neutral = {
            name
            for name, field in type(self).model_fields.items()
            if isinstance(field.json_schema_extra, dict) and field.json_schema_extra.get("neutral")
        }
        values = self.model_dump(mode="json", exclude=neutral)
        for name, field in type(self).model_fields.items():
            extra, value = field.json_schema_extra, getattr(self, name)
            if isinstance(value, Frozen):
                values[name] = value.bearing()
            elif isinstance(extra, dict) and extra.get("contents") and value:
                values[name] = contents_of(Path(value))
        return values


def neutral(default: Any, **constraints: Any) -> Any:
    """A field that says how or where something runs and not what comes out."""
    return Field(default, json_schema_extra={"neutral": True}, **constraints)


def contents(default: str = "") -> Any:
    """A field with the path of a file or folder: what it holds bears on the result."""
    return Field(default, json_schema_extra={"contents": True})


def contents_of(path: Path) -> str:
    """Digest of a file, or of the names and sizes in a folder; the path where there is nothing."""
    if path.is_file():
        return sha256_of(path)
    if path.is_dir():
        files = sorted((str(f.relative_to(path)), f.stat().st_size) for f in path.rglob("*.*"))
        return hashlib.sha256(repr(files).encode()).hexdigest()
    return str(path)


class RuntimeConfig(Frozen):
    """Where and how stages run. Nothing here bears on results."""

    device: str = "auto"  # or cpu, cuda:1, ...; stages that go by shard use all of cuda:0,cuda:1
    threads: int = 0  # 0 leaves PyTorch's choice
    ranks: int = Field(1, ge=1)  # processes that train together; one for each GPU
    # A stage that computes has a process of its own: its memory goes back to the system, and the
    # threads of the flow do not slow it down (docs/experiments.md, Idle threads).
    own_process: bool = True
    minimum_free_bytes: int = 1 << 30


class PartConfig(Frozen):
    """A frozen part by its name."""

    name: str


class LanguageConfig(PartConfig):
    """The language model: ``embedded``, ``tiny``, a folder or a Hugging Face name."""

    precision: Precision = "bfloat16"
    quantization: Literal["none", "8bit", "4bit"] = "none"  # of the layers' weights
    checkpoint_activations: bool = neutral(False)  # less memory for a third more time


class VisionConfig(PartConfig):
    """The image-text model: ``embedded``, ``tiny`` or an open_clip name and its pretraining tag."""

    pretrained: str = ""


class GeneratorConfig(PartConfig):
    """The image generator: ``embedded``, ``tiny``, a diffusers folder or hub name."""

    steps: int = Field(50, ge=1)
    guidance_scale: float = 7.5
    precision: Precision = "float32"  # while sampling
    batch_size: int = neutral(64, ge=1)


class PartsConfig(Frozen):
    """The three frozen parts."""

    language: LanguageConfig
    vision: VisionConfig
    generator: GeneratorConfig

    @property
    def text_encoder(self) -> PartConfig:
        """The generator's, which gives the mapper's targets; the sampler has no bearing on it."""
        return PartConfig(name=self.generator.name)


class SharedOut(Frozen):
    """A stage whose shards can be shared out over the workers of a Ray cluster, in batches."""

    runner: Literal["threads", "ray"] = neutral("threads")  # threads: of this machine
    ray_address: str = neutral("")  # of a cluster; otherwise a local one is started
    shards_per_task: int = neutral(64, ge=1)
    gpus_per_task: float = neutral(0, ge=0)  # that Ray sets aside for a batch


class DownloadConfig(SharedOut):
    """Pairs into image shards; docs/download.md says what each source wants."""

    source: Literal["embedded", "cc3m", "folder", "webdataset", "huggingface"] = "embedded"
    paths: dict[str, str] = {}  # split -> file(s), or the data set's name of the split
    images: str = ""  # folder: where the names in the list are
    dataset: str = ""  # huggingface: a hub name or a folder
    columns: dict[str, str] = {}  # huggingface: caption and image or url -> their columns
    revision: str = "main"
    limit: int | None = Field(None, ge=1)
    shard_size: int = Field(512, ge=1)
    # What is made of a picture, and which are taken.
    resize: Literal["crop", "bound", "original"] = "original"
    size: int = Field(256, ge=1)
    quality: int = Field(95, ge=1, le=100)
    most_pixels: int = Field(100_000_000, ge=1)
    smallest: int = Field(32, ge=1)
    widest: float = Field(8.0, ge=1)
    duplicates: Literal["keep", "drop"] = "keep"
    placeholders: Literal["keep", "drop"] = "keep"
    placeholder_addresses: int = Field(10, ge=2)  # that send the same bytes
    # The web.
    contact: str = neutral("")  # in the User-Agent: an address or a page
    deadline: float = Field(15.0, gt=0)
    largest_bytes: int = Field(20 << 20, ge=1)
    redirects: int = Field(5, ge=0)
    robots: bool = True
    opt_out: bool = True
    allowed_networks: tuple[str, ...] = ()  # that are not public, such as 127.0.0.0/8
    retries: tuple[Literal["transient", "all"], ...] = ()  # passes over the failures
    # Where and how.
    per_host: int = neutral(8, ge=1)
    processes: int = neutral(0, ge=0)  # 0 for one for each core
    in_flight: int = neutral(64, ge=1)
    shards_at_once: int = neutral(3, ge=1)
    store: str = neutral("")  # an fsspec address that machines share while they fetch

    @model_validator(mode="after")
    def _contact_for_the_web(self) -> Self:
        if (self.source == "cc3m" or "url" in self.columns) and not self.contact:
            raise ValueError(
                "download.contact is empty; whoever is asked for pictures must be able to ask "
                "back: give a mail address or a page"
            )
        return self


class ClipFeaturesConfig(SharedOut):
    """Pooled vision features of every image."""

    batch_size: int = neutral(64, ge=1)


class TextTargetsConfig(SharedOut):
    """The generator's text-encoder output for every caption.

    ``int8`` takes 0.52 of the bytes of ``fp16``; docs/download.md has its error.
    """

    form: Literal["fp16", "int8"] = "fp16"
    batch_size: int = neutral(128, ge=1)


class TrainingConfig(Frozen):
    """What every training stage has. The defaults are the reference run's (facts.md)."""

    steps: int = Field(20_000, ge=1)
    batch_size: int = Field(200, ge=1)
    learning_rate: float = Field(1e-3, gt=0)
    betas: tuple[float, float] = (0.9, 0.95)
    weight_decay: float = 0.01
    warmup_steps: int = 2000
    schedule: Literal["step", "cosine", "trapezoid"] = "step"
    decay_every: int = 10_000
    decay_factor: float = 0.1
    gradient_clip: float = 1.0
    accumulate: int = Field(1, ge=1)  # parts that a batch is trained on in
    precision: Precision = "bfloat16"
    seed: int = 0
    # End with the weights of the best validation instead of the last step's.
    keep_best: bool = False
    early_stopping: int = Field(0, ge=0)  # after so many validations without a best; 0: never
    log_every: int = neutral(20, ge=1)
    validate_every: int = neutral(200, ge=1)
    checkpoint_every: int = neutral(200, ge=1)
    checkpoint_minutes: float = neutral(20.0, gt=0)
    keep_checkpoints: int = neutral(2, ge=1)

    def bearing(self) -> dict[str, Any]:
        """The fields that bear on the result: with a choice by validation, how it is done too."""
        own = self.model_dump(include={"validate_every", "validation_pairs"})
        return super().bearing() | (own if self.keep_best or self.early_stopping else {})


class PairsTrainingConfig(TrainingConfig):
    """A training stage that is validated on image-caption pairs."""

    validation_pairs: int = neutral(0, ge=0)  # that a validation looks at; 0: the whole split


class AdaptersConfig(PairsTrainingConfig):
    """W_cap, E_img, W_t2i, W_i2t and the temperature."""

    num_img_tokens: int = Field(8, ge=1)
    num_visual_tokens: int = Field(4, ge=1)
    retrieval_dim: int = Field(256, ge=1)
    max_tokens: int = Field(32, ge=2)  # [IMG] tokens included
    # Text that the visual tokens start as, with {} for one that starts as the words of the picture;
    # empty for the reference's random start.
    start_prompt: str = ""
    # Of W_cap, as a factor of the learning rate: from a start as text it wants smaller steps.
    captioning_rate: float = Field(1.0, gt=0)
    packing_probability: float = Field(0.5, ge=0, le=1)
    captioning_weight: float = 1.0
    img_prediction_weight: float = 1.0
    retrieval_weight: float = 1.0
    # Further steps of W_t2i, W_i2t and the temperature on the cached [IMG] states, once E_img is
    # fixed: they cost no pass of the language model. The reference run has none.
    refine_steps: int = Field(0, ge=0)
    refine_batch_size: int = Field(512, ge=2)
    refine_learning_rate: float = Field(1e-3, gt=0)
    refine_weight_decay: float = Field(0.1, ge=0)
    refine_noise: float = Field(0.5, ge=0)  # on both inputs, relative to their deviation
    state_batch_size: int = neutral(64, ge=1)

    @model_validator(mode="after")
    def _room_for_the_caption(self) -> Self:
        if self.max_tokens < self.num_img_tokens + 2:
            raise ValueError(
                f"max_tokens {self.max_tokens} leaves no room for a caption beside "
                f"{self.num_img_tokens} [IMG] tokens; it must be {self.num_img_tokens + 2} or more"
            )
        return self


class MapperConfig(PairsTrainingConfig):
    """GILLMapper and the rivals that are trained beside it for comparison."""

    kind: Literal["gill", "linear", "mlp", "encoder"] = "gill"
    hidden_dim: int = 512
    layers: int = 4
    heads: int = 4
    feedforward_dim: int = 2048
    loss_form: Literal["norm", "squared"] = "norm"
    baselines: tuple[Literal["gill", "linear", "mlp", "encoder"], ...] = ("linear",)
    # fitted: in closed form to the first captions, before any training; random as in the reference.
    start: Literal["random", "fitted"] = "random"


class JointConfig(AdaptersConfig):
    """The schedule ``joint``: adapters and mapper together, in the adapters' steps."""

    kind: Literal["gill", "linear", "mlp", "encoder"] = "gill"
    hidden_dim: int = 512
    layers: int = 4
    heads: int = 4
    feedforward_dim: int = 2048
    loss_form: Literal["norm", "squared"] = "norm"
    start: Literal["random", "fitted"] = "random"
    generation_weight: float = 1.0
    baselines: tuple[()] = ()  # what reads a mapper's artifact asks for them

    @classmethod
    def of(
        cls, adapters: AdaptersConfig, mapper: MapperConfig, generation_weight: float
    ) -> JointConfig:
        """The settings of the two stages that it stands for: the mapper gives kind and sizes."""
        own = set(cls.model_fields) - set(AdaptersConfig.model_fields) - {"baselines"}
        sizes = mapper.model_dump(include=own)
        return cls(**adapters.model_dump(), **sizes, generation_weight=generation_weight)


class IndexConfig(Frozen):
    """The pictures that can be retrieved."""

    splits: tuple[str, ...] = ("train",)


class DecisionConfig(TrainingConfig):
    """Labels by votes of the scorer or of people, then a linear classifier."""

    steps: int = 2000
    warmup_steps: int = 0
    decay_every: int = 0
    precision: Precision = "float32"
    split: str = "validation"  # prompts that no other part was trained on
    train_prompts: int = Field(600, ge=1)
    validation_prompts: int = Field(600, ge=1)
    votes: int = Field(5, ge=1)
    margin: float = Field(0.02, ge=0)
    # Judge each prompt against the usual gap between generated and retrieved pictures. Without it a
    # scorer that likes real pictures better than this generator's votes "retrieve" for nearly all.
    balance: bool = False
    # A TSV with votes of people (docs/evaluation.md). Its prompts then take the place of ``split``:
    # ``train_prompts`` of those with a confident label train, the rest validates.
    votes_file: str = contents()
    rare_classes: Literal["as_is", "weight", "resample"] = "weight"
    # Models with a further feature, trained beside the main one to be compared and not kept.
    ablations: tuple[Literal["retrieval_score"], ...] = ("retrieval_score",)
    dropout: float = 0.5


class JudgesConfig(Frozen):
    """Networks that judge pictures beside the scorer; a path, or ``owner/repository/file``."""

    fid: str = contents()  # the Inception of 2015
    lpips: str = contents()  # torchvision's AlexNet
    clip: str = ""  # open_clip's model/pretraining
    perceptual: bool = False  # the distance in the scorer's layers that stands in for LPIPS


Suite = Literal["captioning", "retrieval", "generation", "decisions", "study", "vist", "visdial"]


class ContextsConfig(Frozen):
    """Pictures made from a story or a dialogue: the suites study, vist and visdial."""

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


class EvaluateConfig(Frozen):
    """What is measured on the test split, and the budget of pictures."""

    suites: tuple[Suite, ...] = ("captioning", "retrieval", "generation", "decisions")
    judges: JudgesConfig = JudgesConfig()
    contexts: ContextsConfig = ContextsConfig()
    picture_seeds: int = Field(1, ge=1)
    retrieval_candidates: int = 500
    captions: int = 500
    max_new_tokens: int = 24
    pictures: int = 256
    decision_prompts: int = 256  # of these, with as many pictures each as the decision has votes
    gallery: int = 48
    seed: int = 1000
