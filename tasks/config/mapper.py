"""The stage ``mapper``, and ``joint`` and ``imported``, which give it with the adapters."""

from __future__ import annotations

from typing import Annotated, Literal

from gill.losses import GenerationLossForm, GenerationLossWeight
from gill.mapper import MapperKind, MapperSize
from gill.settings import REFERENCE, setting
from tasks.config.adapters import AdaptersConfig, ImgStatesConfig
from tasks.config.base import Config, Unique, unfingerprinted
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


class GivenModel(Config):
    """A trained model that takes the place of a training."""

    # What its files hold bears on the result, wherever they lie (tasks/stages/imported.py).
    model: str = unfingerprinted(
        "",
        "with the schedule imported: an artifact's folder, such as `gill import` prints, a var "
        "folder or an MLflow run id",
        source="none: a model is trained",
    )


class ImportedConfig(ImgStatesConfig, GivenModel):
    """The schedule ``imported``: adapters and mapper of a model that was trained before."""

    kind: Literal["gill"] = setting("gill", "of its mapper", source="the released layout")
    baselines: tuple[()] = setting(
        (), "none; what reads a mapper's artifact asks for them", source="the released layout"
    )

    @classmethod
    def composed(cls, adapters: AdaptersConfig, given: GivenModel) -> ImportedConfig:
        """Captions are cut as the adapters' stage cuts them."""
        states = ImgStatesConfig.of(adapters).model_dump()
        return cls(**states, **GivenModel.of(given).model_dump())
