"""The stage ``mapper``, and ``joint``, which trains it with the adapters."""

from __future__ import annotations

from typing import Annotated, Literal

from gill.losses import GenerationLossForm, GenerationLossWeight
from gill.mapper import MapperKind, MapperSize
from gill.settings import REFERENCE, setting
from tasks.config.adapters import AdaptersConfig
from tasks.config.base import Config, Unique
from tasks.config.training import PairsTrainingConfig


class MapperDesign(MapperSize, GenerationLossForm, Config):
    """What mapper is trained, by whichever stage."""

    initialization: Literal["random", "data_dependent"] = setting(
        "random",
        "data_dependent: in closed form from the first captions, before any training; random: "
        "PyTorch's",
        source=REFERENCE,
    )


class MapperConfig(PairsTrainingConfig, MapperDesign):
    """GILLMapper and the baselines that are trained beside it for comparison."""

    baselines: Annotated[tuple[MapperKind, ...], Unique] = setting(
        ("linear",), "kinds that are trained beside it", source=REFERENCE
    )


class JointConfig(AdaptersConfig, MapperDesign, GenerationLossWeight):
    """The schedule ``joint``: adapters and mapper together, in the adapters' steps."""

    baselines: tuple[()] = setting(
        (), "none; what reads a mapper's artifact asks for them", source="the paper"
    )

    @classmethod
    def composed(
        cls, adapters: AdaptersConfig, mapper: MapperConfig, weight: GenerationLossWeight
    ) -> JointConfig:
        """The settings of the two stages that it stands for: the mapper gives kind and sizes."""
        return cls(
            **adapters.model_dump(),
            **MapperDesign.of(mapper).model_dump(),
            **GenerationLossWeight.of(weight).model_dump(),
        )
