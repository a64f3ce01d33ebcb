"""Stage 4: W_cap, E_img, W_t2i, W_i2t and the temperature, and the [IMG] states they lead to."""

from __future__ import annotations

from data.artifacts import ClipFeatures, ImageShards, TrainedAdapters
from gill.data_parallel import WorkerGroup
from tasks.config.adapters import AdaptersConfig
from tasks.parts.loading import load_language
from tasks.runner.context import StageContext
from tasks.runner.stage import StageDeclaration
from tasks.training.adapters import AdapterTraining
from tasks.training.loop import finish

STAGE = StageDeclaration(
    version=6,
    description="Captioning and retrieval adapters and the [IMG] states",
    headlines=("validation_l_c", "validation_t2i_r1", "validation_t2i_r10"),
    parts=("language",),
    model="gill-adapters",
    data_parallel=True,
    splits=lambda _: ("train", "validation"),
)


def run(
    context: StageContext[AdaptersConfig], images: ImageShards, features: ClipFeatures
) -> TrainedAdapters:
    """Write the weights, and states for every split.

    E_img is fixed from here on, so the [IMG] states of the captions are constants: they are
    computed once, and the mapper and the decision model train without the language model.
    """
    language = load_language(context.parts.language, context.runtime)
    training = AdapterTraining(
        language,
        context.config,
        images,
        features,
        context.out,
        context.log,
        identity=context.identity,
        donors=context.donors,
    )
    metrics = training.run()
    if WorkerGroup.current().first:
        finish(context.out)
    return TrainedAdapters.made(context.out, metrics)
