"""Recipes: functions that return a whole, typed configuration."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from flows.config import PipelineConfig
from flows.names import RecipeName
from flows.overrides import check_recipe
from gill.training import Precision
from tasks.config.adapters import AdaptersConfig
from tasks.config.data import TextTargetsConfig
from tasks.config.decision import DecisionConfig
from tasks.config.download import DownloadConfig
from tasks.config.evaluation import ContextsConfig, EvaluateConfig, MetricNetworksConfig
from tasks.config.mapper import MapperConfig
from tasks.config.parts import (
    GeneratorConfig,
    LanguageConfig,
    PartsConfig,
    RuntimeConfig,
    VisionConfig,
)


def tiny() -> PipelineConfig:
    """Micro models with random weights on 64 pairs: every stage in seconds, for tests."""
    return PipelineConfig(
        parts=PartsConfig(
            language=LanguageConfig(name="tiny", precision="float32"),
            vision=VisionConfig(name="tiny"),
            generator=GeneratorConfig(name="tiny", steps=2),
        ),
        runtime=RuntimeConfig(device="cpu", own_process=False, minimum_free_bytes=1 << 26),
        download=DownloadConfig(limit=64, shard_size=16),
        adapters=AdaptersConfig(
            steps=12,
            batch_size=8,
            warmup_steps=2,
            precision="float32",
            num_img_tokens=2,
            num_visual_tokens=2,
            retrieval_dim=8,
            refine_steps=4,
            refine_batch_size=16,
            log_every=4,
            checkpoint_every=4,
            validate_every=8,
        ),
        mapper=MapperConfig(
            steps=12,
            batch_size=8,
            warmup_steps=2,
            precision="float32",
            hidden_dim=16,
            layers=1,
            heads=2,
            feedforward_dim=32,
            log_every=4,
            checkpoint_every=4,
            validate_every=8,
        ),
        decision=DecisionConfig(
            steps=20,
            batch_size=8,
            train_prompts=24,
            validation_prompts=24,
            votes=3,
            margin=0.0,
            log_every=5,
        ),
        evaluate=EvaluateConfig(
            retrieval_candidates=64,
            captions=8,
            max_new_tokens=6,
            images=12,
            decision_prompts=12,
            gallery=4,
        ),
    )


def native_precision() -> Precision:
    """bfloat16 where this machine has instructions for it, else float32.

    Without them a matrix product in bfloat16 takes 8 times as long as in float32, and one in a
    backward pass up to 130 times (docs/experiments.md, Precision).
    """
    import torch

    native = torch.cuda.is_available() or torch.backends.cpu.get_cpu_capability() == "AVX512"
    return "bfloat16" if native else "float32"


def embedded() -> PipelineConfig:
    """Real weights and real images without a network: minutes on two CPU cores."""
    precision = native_precision()
    return PipelineConfig(
        parts=PartsConfig(
            language=LanguageConfig(name="embedded", precision=precision),
            vision=VisionConfig(name="embedded", precision=precision),
            generator=GeneratorConfig(
                name="embedded",
                steps=10,
                guidance_scale=2.0,
                precision=precision,
                batch_size=32,
            ),
        ),
        download=DownloadConfig(source="scenes", scenes=4500),
        adapters=AdaptersConfig(
            steps=120,
            batch_size=16,
            precision=precision,
            initial_prompt="\n{}:\n",
            captioning_rate=0.05,
            learning_rate=3e-3,
            warmup_steps=5,
            schedule="cosine",
            num_img_tokens=8,
            retrieval_dim=256,
            max_tokens=72,
            log_every=3,
            checkpoint_every=20,
            validate_every=60,
            validation_pairs=128,
            refine_steps=300,
            refine_noise=0.25,
        ),
        mapper=MapperConfig(
            steps=600,
            batch_size=64,
            loss_form="squared",  # its minimum is the mean of what a caption may mean
            weight_decay=0.3,  # long contexts are unlike captions: less of a fit carries further
            precision=precision,
            initialization="data_dependent",
            learning_rate=2e-3,
            warmup_steps=50,
            schedule="cosine",
            hidden_dim=256,
            feedforward_dim=1024,
            layers=1,
            log_every=40,
            checkpoint_every=200,
            validate_every=300,
        ),
        decision=DecisionConfig(
            steps=600,
            batch_size=64,
            train_prompts=240,
            validation_prompts=320,
            votes=3,
            margin=0.05,
            balance=True,
            schedule="cosine",
            log_every=20,
        ),
        evaluate=EvaluateConfig(
            suites=("captioning", "retrieval", "generation", "decisions", "synthetic_contexts"),
            metric_networks=MetricNetworksConfig(scenes=True),
            contexts=ContextsConfig(seeds=1, cases=100),
            sources=("new_scenes",),
            captions=300,
            images=300,
            hard_candidates=150,
            decision_prompts=400,
        ),
    )


def opt_6_7b() -> PipelineConfig:
    """OPT-6.7B, CLIP ViT-L/14 and Stable Diffusion 1.5, as in docs/explanation/method.md."""
    return PipelineConfig(
        parts=PartsConfig(
            language=LanguageConfig(name="facebook/opt-6.7b", precision="bfloat16"),
            vision=VisionConfig(  # in the precision of the language model, as in the released code
                name="ViT-L-14-quickgelu", pretrained="openai", precision="bfloat16"
            ),
            generator=GeneratorConfig(
                name="stable-diffusion-v1-5/stable-diffusion-v1-5", steps=50, guidance_scale=7.5
            ),
        ),
        download=DownloadConfig(
            source="webdataset",  # a third of the publisher's links is dead
            paths={
                "train": "hf://datasets/pixparse/cc3m-wds/cc3m-train-*.tar",
                "validation": "hf://datasets/pixparse/cc3m-wds/cc3m-validation-*.tar[:6000]",
                "test": "hf://datasets/pixparse/cc3m-wds/cc3m-validation-*.tar[6000:]",
            },
            shard_size=1000,
            resize="crop",
            size=256,
            placeholders="drop",
        ),
        text_targets=TextTargetsConfig(form="int8"),
        # The paper's form where paper and released code differ: docs/reference/differences.md.
        adapters=AdaptersConfig(img_prediction_form="paper", logit_scale_cap=100.0, decay_from=0),
        mapper=MapperConfig(loss_form="norm", decay_from=0),  # the released code's form of l_g
        decision=DecisionConfig(
            rare_classes="as_is",  # as in the released code
            batch_size=200,
            weight_decay=0.01,
            betas=(0.9, 0.95),
            full_batch=False,
            gradient_clip=1.0,
        ),
        schedule="staged",
        evaluate=EvaluateConfig(images=2048, retrieval_candidates=5000, captions=5000),
    )


RECIPES: Mapping[RecipeName, Callable[[], PipelineConfig]] = {
    "tiny": tiny,
    "embedded": embedded,
    "opt-6.7b": opt_6_7b,
}


def resolve(recipe: RecipeName, overrides: Mapping[str, Any]) -> PipelineConfig:
    """The configuration of a recipe with overrides.

    Raises:
        ConfigError: the recipe or a key is unknown, or a value does not fit.
    """
    check_recipe(recipe)
    return RECIPES[recipe]().with_overrides(overrides)
