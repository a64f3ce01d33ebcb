"""Stage 4: W_cap, E_img, W_t2i, W_i2t and the temperature, and the [IMG] states they lead to."""

from __future__ import annotations

import json
import sys
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from data import schemas
from data.artifacts import Artifact
from data.io.atomic import write_json
from data.loader import ShuffledBatches
from data.shards import AlignedShards, Columns, as_bytes, read_table, shard_names
from gill.backbones.language import LanguageModel
from gill.batches import AdapterBatch
from gill.captions import caption_oddities
from gill.data_parallel import WorkerGroup
from gill.evaluation.retrieval import recall
from gill.initialization import start_captioning, start_mapper, words_of_images
from gill.losses import AdapterLossWeights, GenerationForm, LossWeights, contrastive_loss
from gill.mapper import Mapper
from gill.model import Adapters, GillModel
from gill.specs import AdapterSize, AdapterSpec
from gill.training import Optimization, Trainer, autocast
from tasks.config.adapters import AdaptersConfig
from tasks.parts.loading import load_language
from tasks.runner.context import StageContext
from tasks.runner.shard_map import map_shards
from tasks.stages.clip_features import FEATURES
from tasks.stages.download import IMAGES
from tasks.training.loop import RANDOM, finish, held_out, on_device, train

STATES = "states"
INITIALIZATION_PAIRS = 20_000  # that W_cap is initialized from
JOINT_INITIALIZATION_PAIRS = (
    1024  # that the start of a mapper in `joint` is; the language model reads them
)


@dataclass(frozen=True)
class JointMapper:
    """A mapper that is trained with the adapters, and the targets that it is to meet."""

    mapper: Mapper
    targets: Path
    form: GenerationForm
    weight: float
    initialize: bool


def run(context: StageContext) -> dict[str, float]:
    """Write ``adapters.safetensors`` and ``states/<shard>`` for every split.

    E_img is fixed from here on, so the [IMG] states of the captions are constants: they are
    computed once, and the mapper and the decision model train without the language model.
    """
    metrics = fit(context, load_language(context.parts.language, context.runtime))
    if WorkerGroup.current().first:
        finish(context)
    return metrics


def fit(
    context: StageContext, language: LanguageModel, joint: JointMapper | None = None
) -> dict[str, float]:
    """Train the adapters, with a mapper or without, and write what ``run`` says.

    Every worker trains and computes states; the first alone validates, refines and writes the rest.
    """
    config: AdaptersConfig = context.config
    workers = WorkerGroup.current()
    images = context.inputs["download"].file(IMAGES)
    features = context.inputs["clip_features"].file(FEATURES)
    folders = {images: ["caption"], features: ["feature"]}
    if joint is not None:
        folders[joint.targets] = ["target"]
    training = AlignedShards(folders, "train")
    vision_dim = _width(features / training.names()[0])
    size = AdapterSize.of(config).model_dump()
    spec = AdapterSpec(**size, vision_dim=vision_dim, llm_dim=language.dim)
    with RANDOM:
        torch.manual_seed(config.seed)
        adapters = Adapters(spec, language).to(language.device)
        model = GillModel(language, adapters, config.max_tokens - config.num_img_tokens)
        losses = _Losses(model, config, joint)
        trained = {"adapters": adapters} | ({} if joint is None else {"mapper": joint.mapper})
        trainer = Trainer(
            adapters if joint is None else nn.ModuleDict(trained),
            losses,
            Optimization.of(config),
            after_step=adapters.img_tokens.rescale,
            rates=dict.fromkeys(("captioning", "adapters.captioning"), config.captioning_rate),
            split=lambda b: model.split(b, config.packing_probability, config.accumulate),
        )
        order = ShuffledBatches(training, config.batch_size, config.seed, length=_lengths)
        pairs = held_out(AlignedShards(folders, "validation"), config)

        def start() -> None:
            if config.initial_prompt:
                # Not `training`, which may hold the targets too, far larger than all else.
                begun_with = AlignedShards({images: ["caption"], features: ["feature"]}, "train")
                _start(adapters, language, config.initial_prompt, begun_with)
            if joint is not None and joint.initialize:
                _start_mapper(joint, losses, training, config.state_batch_size)

        def validate() -> dict[str, float]:
            return validation(losses, pairs)

        train(
            trainer,
            lambda start: (losses.batch(rows) for rows in order.batches(start)),
            context,
            validate=validate,
            start=start,
        )
        # A mapper that is trained here needs no states of the pairs that it is trained on.
        whole = joint is None or config.refine_steps > 0
        _write_states(context, model, images, whole)
        if not workers.first:
            return {}
        if config.refine_steps:
            refine(context, adapters, features)
        metrics = {f"validation_{k}": v for k, v in validate().items()}
    context.log.metrics(metrics, config.steps)
    save(context.out, adapters)
    parameters = sum(p.numel() for p in trainer.parameters)
    oddities = {f"captions_{k}": float(v) for k, v in _oddities(model, images).items()}
    return {**metrics, **oddities, "trained_parameters": float(parameters)}


def _start(adapters: Adapters, language: LanguageModel, prompt: str, pairs: AlignedShards) -> None:
    """Let the visual tokens start as a text; ``{}`` in it stands for the words of the image."""
    before, slot, after = prompt.partition("{}")
    head, tail = (
        list(language.tokenizer(part, add_special_tokens=False)["input_ids"])
        for part in (before, after)
    )
    if slot and len(head) >= adapters.spec.num_visual_tokens:
        raise ValueError(
            f"adapters.initial_prompt {prompt!r} has {len(head)} tokens before {{}} and there are "
            f"{adapters.spec.num_visual_tokens} visual tokens; shorten it"
        )
    place = [language.eos_id] if slot else []
    ids = torch.tensor([*head, *place, *tail], device=language.device)
    words = None
    if slot:
        rows = pairs.first(INITIALIZATION_PAIRS)
        features = torch.from_numpy(np.asarray(rows["feature"], np.float32))
        captions = [str(caption) for caption in rows["caption"]]
        tokens = language.tokenize(captions, sys.maxsize)
        known = [i for i, ids_of in enumerate(tokens) if ids_of]
        words = words_of_images(
            features[known].to(language.device),
            [tokens[i] for i in known],
            language.embedding.weight,
        )
    embeddings = language.embedding.weight[ids].float()
    start_captioning(adapters.captioning, embeddings, len(head), words)


def _start_mapper(
    joint: JointMapper, losses: _Losses, training: AlignedShards, batch_size: int
) -> None:
    """Fit the mapper to the states that the untrained E_img gives."""
    batch = losses.batch(training.first(JOINT_INITIALIZATION_PAIRS))
    model = losses.model
    states = model.all_img_states(batch.captions, batch_size).to(model.language.device)
    img = model.adapters.img_tokens.weight.detach().float()
    if batch.targets is None:
        raise ValueError("a data-dependent initialization of the mapper needs targets")
    start_mapper(joint.mapper, states, img, batch.targets.to(states.device).float())


@dataclass(frozen=True)
class _Losses:
    """The losses of a batch as the configuration weighs them, and batches of shard rows."""

    model: GillModel
    config: AdaptersConfig
    joint: JointMapper | None

    def __call__(self, batch: AdapterBatch) -> dict[str, Tensor]:
        return self.with_states(batch)[0]

    def with_states(self, batch: AdapterBatch) -> tuple[dict[str, Tensor], Tensor]:
        config, joint = self.config, self.joint
        weights = LossWeights(
            **AdapterLossWeights.of(config).model_dump(),
            generation_weight=1.0 if joint is None else joint.weight,
        )
        mapper = None if joint is None else joint.mapper
        form = "norm" if joint is None else joint.form
        return self.model.losses_and_states(
            batch, weights, config.packing_probability, mapper, form
        )

    def batch(self, rows: Columns) -> AdapterBatch:
        """A batch of shard rows; targets stay on the CPU until a part of them is wanted."""
        device = self.model.language.device
        targets = None
        if self.joint is not None:
            mapper = self.joint.mapper
            targets = torch.from_numpy(np.asarray(rows["target"]))
            targets = targets.view(-1, mapper.num_targets, mapper.target_dim)
        return AdapterBatch(
            self.model.tokenize([str(c) for c in rows["caption"]]),
            on_device(rows["feature"], device, np.float32),
            targets,
            tuple(str(key) for key in rows["key"]),
        )


def refine(context: StageContext, adapters: Adapters, features: Path) -> None:
    """Train the retrieval maps further on the cached states, which are constants by now."""
    config: AdaptersConfig = context.config
    shards = AlignedShards({context.out / STATES: ["state"], features: ["feature"]}, "train")
    order = ShuffledBatches(shards, config.refine_batch_size, config.seed + 1)
    device = adapters.img_tokens.weight.device

    def noisy(x: Tensor) -> Tensor:
        return x + config.refine_noise * x.std() * torch.randn_like(x)

    def loss(batch: RefineBatch) -> dict[str, Tensor]:
        maps = adapters.retrieval
        text, image = maps.embed_text(noisy(batch.states)), maps.embed_image(noisy(batch.features))
        return {"loss": contrastive_loss(text, image, maps.scale())}

    def batches(start: int) -> Iterator[RefineBatch]:
        for rows in order.batches(start):
            states = on_device(rows["state"], device, np.float32)
            feature = on_device(rows["feature"], device, np.float32)
            yield RefineBatch(states.view(len(states), config.num_img_tokens, -1), feature)

    settings = Optimization(
        steps=config.refine_steps,
        learning_rate=config.refine_learning_rate,
        betas=config.betas,
        weight_decay=config.refine_weight_decay,
        schedule="cosine",
        gradient_clip=config.gradient_clip,
        seed=config.seed,
    )
    train(Trainer(adapters.retrieval, loss, settings), batches, context, "refine")


@dataclass(frozen=True)
class RefineBatch:
    """Cached states ``(batch, r, llm_dim)`` and features ``(batch, vision_dim)``."""

    states: Tensor
    features: Tensor

    def __len__(self) -> int:
        return len(self.states)


def save(folder: Path, adapters: Adapters) -> None:
    """Write the weights and their spec."""
    save_file(
        {k: v.contiguous() for k, v in adapters.state_dict().items()},
        folder / "adapters.safetensors",
    )
    write_json(folder / "adapters.json", adapters.spec.model_dump())


def load(artifact: Artifact, language: LanguageModel) -> Adapters:
    """Read the adapters of an artifact."""
    spec = AdapterSpec(**json.loads(artifact.file("adapters.json").read_text()))
    adapters = Adapters(spec, language)
    adapters.load_state_dict(load_file(artifact.file("adapters.safetensors")))
    return adapters.to(language.device).requires_grad_(False).eval()


def validation(losses: _Losses, rows: Columns) -> dict[str, float]:
    """Losses on held-out pairs without packing, and recall among all of them."""
    model, config = losses.model, losses.config
    sums: dict[str, float] = {}
    texts, images = [], []
    retrieval = model.adapters.retrieval
    count = len(rows["key"])
    model.adapters.eval()
    with torch.no_grad(), autocast(model.language.device, config.precision):
        for start in range(0, count, config.batch_size):
            part = losses.batch(_slice(rows, start, start + config.batch_size))
            found, states = losses.with_states(replace(part, packed=False))
            texts.append(retrieval.embed_text(states).float().cpu())
            images.append(retrieval.embed_image(part.features).float().cpu())
            for name, value in found.items():
                sums[name] = sums.get(name, 0.0) + float(value) * len(part) / count
    return {**sums, **recall(torch.cat(texts), torch.cat(images))}


def _lengths(rows: Columns) -> list[int]:
    return [len(str(caption)) for caption in rows["caption"]]


def _slice(rows: Columns, start: int, stop: int) -> Columns:
    return {name: values[start:stop] for name, values in rows.items()}


def _width(path: Path) -> int:
    table = read_table(path, ["feature"], "features")
    return int(table.schema.field("feature").type.byte_width) // 2


def _write_states(context: StageContext, model: GillModel, images: Path, whole: bool) -> None:
    config: AdaptersConfig = context.config
    schema = schemas.img_states(config.num_img_tokens, model.language.dim)

    def convert(path: Path) -> pa.Table:
        table = read_table(path, ["key", "caption"], "images")
        captions = model.tokenize(table.column("caption").to_pylist())
        states = model.all_img_states(captions, config.state_batch_size).numpy()
        return pa.table([table.column("key"), as_bytes(states.astype(np.float16))], schema=schema)

    wanted = [n for n in shard_names(images) if whole or not n.startswith("train-")]
    chosen = replace(context, shards=tuple(wanted))
    map_shards(chosen, images, context.out / STATES, "[IMG] states", convert, WorkerGroup.current())


def _oddities(model: GillModel, images: Path) -> Counter[str]:
    found: Counter[str] = Counter()
    for name in shard_names(images):
        captions = read_table(images / name, ["caption"]).column("caption").to_pylist()
        found.update(caption_oddities(model.language, captions, model.max_caption_tokens))
    return found
