"""Trains the adapters, with a mapper or without: what the stages adapters and joint share."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

from data.artifacts import ClipFeatures, ImageShards, TrainedAdapters
from data.loader import ShuffledBatches
from data.shards import AlignedShards, Columns, read_table, shard_names, write_shard
from gill.backbones.language import LanguageModel
from gill.batches import AdapterBatch
from gill.captions import caption_oddities
from gill.data_parallel import WorkerGroup
from gill.model import Adapters, GillModel
from gill.specs import AdapterSize, AdapterSpec
from gill.training import Optimization, Trainer
from tasks.config.adapters import AdaptersConfig
from tasks.parts.trained_adapters import save_adapters
from tasks.runner.shard_map import check_room_for_rows
from tasks.tracking.stage_log import StageLog
from tasks.training.adapter_losses import AdapterLosses, JointMapper, validation
from tasks.training.img_states import write_img_states
from tasks.training.loop import RANDOM, TrainingLoop, held_out
from tasks.training.refinement import refine_retrieval
from tasks.training.starts import start_as_prompt, start_joint_mapper


@dataclass(frozen=True)
class AdapterTraining:
    """A training of the adapters.

    Every worker trains and computes states; the first alone validates, refines and writes the rest.

    Attributes:
        out: gets the weights, the states and the checkpoints. log: metrics and progress.
        joint: a mapper that is trained along. identity, donors: as in a ``StageContext``.
    """

    language: LanguageModel
    config: AdaptersConfig
    images: ImageShards
    features: ClipFeatures
    out: Path
    log: StageLog
    joint: JointMapper | None = None
    identity: str = ""
    donors: tuple[Path, ...] = ()

    def run(self) -> dict[str, float]:
        """Train, write weights and states, and return the metrics (of the first worker)."""
        config, joint, language = self.config, self.joint, self.language
        training = self._training(targets=True)
        # A mapper that is trained here needs no states of the pairs that it is trained on.
        unread = () if joint is None or config.refine_steps > 0 else ("train",)
        states, state_bytes = (
            self.out / TrainedAdapters.STATES,
            2 * config.num_img_tokens * language.dim,
        )
        check_room_for_rows(self.images.folder, states, state_bytes, "[IMG] states", unread)
        with RANDOM:
            torch.manual_seed(config.seed)
            adapters = Adapters(self._spec(), language).to(language.device)
            model = GillModel(language, adapters, config.max_tokens - config.num_img_tokens)
            losses = AdapterLosses(model, config, joint)
            trainer = self._trainer(losses)
            order = ShuffledBatches(training, config.batch_size, config.seed, length=_lengths)
            pairs = held_out(AlignedShards(self._folders(targets=True), "validation"), config)

            def start() -> None:
                if config.initial_prompt:
                    # Not `training`, which may hold the targets too, far larger than all else.
                    few = self._training(targets=False)
                    start_as_prompt(adapters, language, config.initial_prompt, few)
                if joint is not None and joint.initialize:
                    start_joint_mapper(joint, losses, training, config.state_batch_size)

            def validate() -> dict[str, float]:
                return validation(losses, pairs)

            def batches(position: int) -> Iterator[AdapterBatch]:
                return (losses.batch(rows) for rows in order.batches(position))

            loop = TrainingLoop(trainer, config, self.out, self.log, validate=validate)
            loop.run(batches, start)
            size = config.state_batch_size
            write_img_states(model, self.images, self.out, self.log, size, unread,
                             self.identity, self.donors)  # fmt: skip
            if not WorkerGroup.current().first:
                return {}
            self._hand_on_selection()
            if config.refine_steps:
                refine_retrieval(config, adapters, self.features, self.out, self.log)
            metrics = {f"validation_{k}": v for k, v in validate().items()}
        self.log.metrics(metrics, config.steps)
        save_adapters(self.out, adapters)
        parameters = sum(p.numel() for p in trainer.parameters)
        oddities = {f"captions_{k}": float(v) for k, v in self._oddities(model).items()}
        return {**metrics, **oddities, "trained_parameters": float(parameters)}

    def _training(self, targets: bool) -> AlignedShards:
        return AlignedShards(self._folders(targets) | self.features.selection, "train")

    def _folders(self, targets: bool) -> dict[Path, list[str]]:
        folders = {self.images.folder: ["caption"], self.features.folder: ["feature"]}
        if targets and self.joint is not None:
            folders[self.joint.targets] = ["target"]
        return folders

    def _hand_on_selection(self) -> None:
        """Let what is trained on the states leave out the same pairs."""
        for folder in self.features.selection:
            for name in shard_names(folder):
                table = read_table(folder / name, None, TrainedAdapters.KEPT)
                write_shard(self.out / TrainedAdapters.KEPT / name, table)

    def _spec(self) -> AdapterSpec:
        size = AdapterSize.of(self.config).model_dump()
        return AdapterSpec(**size, vision_dim=self.features.dim, llm_dim=self.language.dim)

    def _trainer(self, losses: AdapterLosses) -> Trainer:
        config, model, joint = self.config, losses.model, self.joint
        adapters = model.adapters
        return Trainer(
            adapters
            if joint is None
            else nn.ModuleDict({"adapters": adapters, "mapper": joint.mapper}),
            losses,
            Optimization.of(config),
            after_step=adapters.img_tokens.rescale,
            rates=dict.fromkeys(("captioning", "adapters.captioning"), config.captioning_rate),
            split=lambda b: model.split(b, config.packing_probability, config.accumulate),
        )

    def _oddities(self, model: GillModel) -> Counter[str]:
        found: Counter[str] = Counter()
        for name in self.images.names():
            captions = self.images.read(name, ["caption"]).column("caption").to_pylist()
            found.update(caption_oddities(model.language, captions, model.max_caption_tokens))
        return found


def _lengths(rows: Columns) -> list[int]:
    return [len(str(caption)) for caption in rows["caption"]]
