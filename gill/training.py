"""The training loop that every trained part shares: yields metrics, saves and restores its state.

All randomness of a step is derived from ``(seed, step)`` and the learning rate is a function of the
step, so the whole state of a run is the step, the trained tensors and the optimizer's moments. A
run that is killed and restored therefore ends with the same weights, bit for bit, as one that was
not (same machine, same number of threads).
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from gill.data_parallel import WorkerGroup
from gill.settings import (
    LARGEST_SEED,
    MOST,
    MOST_TOGETHER,
    PAPER,
    REFERENCE,
    ComponentSettings,
    later_setting,
    setting,
)

Schedule = Literal["step", "cosine", "trapezoid"]
Precision = Literal["float32", "bfloat16", "float16"]
Beta = Annotated[float, Field(ge=0, lt=1)]


class Optimization(ComponentSettings):
    """AdamW and its schedule."""

    steps: int = setting(
        ..., "updates of the weights", unit="steps", source="each stage's own", ge=1, le=MOST
    )
    learning_rate: float = setting(
        1e-3, "of AdamW, once the warm-up is over", source=REFERENCE, gt=0, le=10
    )
    betas: tuple[Beta, Beta] = setting(
        (0.9, 0.95), "decay rates of AdamW's two moments", source=REFERENCE
    )
    weight_decay: float = setting(0.01, "of AdamW", source=REFERENCE, ge=0, le=10)
    warmup_steps: int = setting(
        0,
        "the learning rate grows linearly over so many",
        unit="steps",
        source="no warm-up where a stage asks for none",
        ge=0,
        le=MOST,
    )
    schedule: Schedule = setting(
        "step",
        "step: times decay_factor every decay_every steps; cosine: falls to zero at the last step; "
        "trapezoid: flat, then falls linearly over the last fifth",
        source=REFERENCE,
    )
    decay_every: int = setting(
        0,
        "between two drops of the schedule `step`; 0: none",
        unit="steps",
        source="no drop where a stage asks for none",
        ge=0,
        le=MOST,
    )
    decay_from: int = later_setting(
        0,
        "the drops of the schedule `step` are counted from there; 2,007 is the released code's",
        unit="steps",
        source=PAPER,
        ge=0,
        le=MOST,
    )
    decay_factor: float = setting(
        0.1,
        "what a drop of the schedule `step` multiplies the rate by",
        unit="times",
        source=REFERENCE,
        gt=0,
        le=1,
    )
    gradient_clip: float = setting(
        1.0, "norm that gradients are cut to", unit="l2 norm", source=REFERENCE, gt=0, le=MOST
    )
    accumulate: int = setting(
        1,
        "parts that a batch is trained on in: saves memory and leaves the update as it is",
        unit="parts",
        source="a whole batch at once",
        ge=1,
        le=MOST_TOGETHER,
    )
    precision: Precision = setting(
        "float32", "of matrix products in training", source="exact where a stage asks for no other"
    )
    seed: int = setting(
        0, "of weights, order, dropout and packing", source="arbitrary", ge=0, le=LARGEST_SEED
    )


def learning_rate(config: Optimization, step: int) -> float:
    """Learning rate of the update that follows ``step`` finished updates.

    ``step`` multiplies by ``decay_factor`` every ``decay_every`` updates (the paper's schedule),
    ``cosine`` falls to zero at ``steps``, ``trapezoid`` is flat and falls linearly over the last
    fifth.
    """
    if step < config.warmup_steps:
        return config.learning_rate * (step + 1) / config.warmup_steps
    if config.schedule == "cosine":
        done = (step - config.warmup_steps) / max(1, config.steps - config.warmup_steps)
        return config.learning_rate * 0.5 * (1 + math.cos(math.pi * min(1.0, done)))
    if config.schedule == "trapezoid":
        return config.learning_rate * min(1.0, (config.steps - step) / (0.2 * config.steps))
    counted = max(0, step - config.decay_from)
    drops = counted // config.decay_every if config.decay_every else 0
    return config.learning_rate * config.decay_factor**drops


@dataclass(frozen=True)
class StepReport:
    """What one update did. ``losses`` are detached scalars that may still lie on the device."""

    step: int
    learning_rate: float
    losses: Mapping[str, Tensor]
    gradient_norm: Tensor
    examples: int


class NonFiniteLossError(RuntimeError):
    """The loss became NaN or infinite.

    Attributes:
        step: finished updates before the one whose loss it is. losses: what led there.
        keys: the examples of its batch. where: the file that lists them, once they are saved.
    """

    def __init__(
        self, step: int, losses: Mapping[str, float], keys: Sequence[str] = (), where: str = ""
    ) -> None:
        self.step, self.losses, self.keys = step, dict(losses), list(keys)
        examples = f" The keys of its {len(self.keys)} examples are in {where}." if where else ""
        super().__init__(
            f"the loss is not finite at step {step}: {self.losses}.{examples} Lower the learning "
            "rate, raise the warm-up, or train in float32; the last checkpoint is from before this "
            "step."
        )


class ResumeError(ValueError):
    """A checkpoint does not belong to this training run."""


def autocast(device: torch.device, precision: str) -> contextlib.AbstractContextManager[Any]:
    """Mixed precision for ``bfloat16`` and ``float16``; nothing for ``float32``."""
    if precision == "float32":
        return contextlib.nullcontext()
    dtype = {"bfloat16": torch.bfloat16, "float16": torch.float16}.get(precision)
    if dtype is None:
        raise ValueError(f"precision is {precision!r}; use float32, bfloat16 or float16")
    return torch.autocast(device.type, dtype)


def _default(config: Optimization, name: str) -> Any:
    """What a setting stood for in checkpoints from before there was one."""
    return type(config).model_fields[name].default


class Trainer:
    """Updates the trainable parameters of ``module`` with the gradients of ``loss``.

    Args:
        module: holds everything that is trained; parameters with ``requires_grad`` off are left be.
        loss: maps a batch to named scalar losses; the one called ``loss`` is minimised.
        config: optimizer and schedule.
        after_step: called after each update, for example to rescale the [IMG] embeddings.
        companions: further modules whose state belongs to the run, such as an average of weights.
        split: cuts a batch into the parts that this worker trains on, with their fractions of it;
            losses and gradients of the parts, times those fractions, add up to the whole batch's.
            Without it a batch is one part.
        rates: learning rates of some parameters by the start of their names, as factors of the
            schedule's; 1 for the others.
        check_every: updates between looks at the losses. Looking waits for the device, so the
            default is every update on a CPU and every 16th elsewhere; the error still names the
            step and the batch.
    """

    def __init__(
        self,
        module: nn.Module,
        loss: Callable[[Any], Mapping[str, Tensor]],
        config: Optimization,
        after_step: Callable[[], None] | None = None,
        companions: Mapping[str, nn.Module] | None = None,
        split: Callable[[Any], Sequence[tuple[Any, float]]] | None = None,
        rates: Mapping[str, float] | None = None,
        check_every: int | None = None,
    ) -> None:
        self.module, self.loss, self.config = module, loss, config
        self.after_step = after_step
        self.companions = dict(companions or {})
        self.split = split
        self.parameters = [p for p in module.parameters() if p.requires_grad]
        if not self.parameters:
            raise ValueError("nothing to train: no parameter of the module requires a gradient")
        if config.accumulate > 1 and split is None:
            raise ValueError(f"accumulate is {config.accumulate} and nothing splits the batches")
        self.workers = WorkerGroup() if split is None else WorkerGroup.current()
        self.workers.broadcast(p.detach() for p in self.parameters)
        groups: dict[float, list[nn.Parameter]] = {}
        for name, parameter in module.named_parameters():
            if parameter.requires_grad:
                own = [rate for start, rate in (rates or {}).items() if name.startswith(start)]
                groups.setdefault(own[0] if own else 1.0, []).append(parameter)
        self._rates = list(groups)
        self.optimizer = torch.optim.AdamW(
            [{"params": parameters} for parameters in groups.values()],
            lr=config.learning_rate,
            betas=config.betas,
            weight_decay=config.weight_decay,
            fused=True,
        )
        self.step = 0
        self._check_every = check_every or (1 if self.device.type == "cpu" else 16)
        self._unchecked: list[tuple[int, Mapping[str, Tensor], Sequence[str]]] = []

    @property
    def device(self) -> torch.device:
        """Where the trained parameters are."""
        return self.parameters[0].device

    def run(self, batches: Iterable[Any], size: Callable[[Any], int] = len) -> Iterator[StepReport]:
        """Yield a report after each update until ``config.steps`` updates are done.

        Args:
            batches: batches from the position ``self.step`` on.
            size: number of examples in a batch.

        Raises:
            NonFiniteLossError: a loss was NaN or infinite; on a CPU before the update that it would
                have made.
        """
        stream = iter(batches)
        while self.step < self.config.steps:
            yield self._update(next(stream), size)
        self.check()

    def check(self) -> None:
        """Look at the losses since the last look: waits for the device.

        Raises:
            NonFiniteLossError: one of them is NaN or infinite; names the first.
        """
        waiting, self._unchecked = self._unchecked, []
        if not waiting:
            return
        values = torch.stack([losses["loss"] for _, losses, _ in waiting]).tolist()
        for value, (step, losses, keys) in zip(values, waiting, strict=True):
            if not math.isfinite(value):
                raise NonFiniteLossError(step, {k: float(v) for k, v in losses.items()}, keys)

    def _update(self, batch: Any, size: Callable[[Any], int]) -> StepReport:
        torch.manual_seed(self.config.seed * 1_000_003 + self.step)
        rate = learning_rate(self.config, self.step)
        for group, factor in zip(self.optimizer.param_groups, self._rates, strict=True):
            group["lr"] = factor * rate
        self.module.train()
        self.optimizer.zero_grad(set_to_none=True)
        summed: dict[str, Tensor] = {}
        with autocast(self.device, self.config.precision):
            parts = [(batch, 1.0)] if self.split is None else self.split(batch)
        for part, fraction in parts:
            with autocast(self.device, self.config.precision):
                losses = self.loss(part)
            (losses["loss"] * fraction).backward()
            for name, value in losses.items():
                own = value.detach().float() * fraction
                summed[name] = summed[name] + own if name in summed else own
        self._sum_over_workers(summed)
        self._unchecked.append((self.step, summed, getattr(batch, "keys", ())))
        if len(self._unchecked) >= self._check_every:
            self.check()
        norm = torch.nn.utils.clip_grad_norm_(self.parameters, self.config.gradient_clip)
        self.optimizer.step()
        if self.after_step is not None:
            self.after_step()
        self.step += 1
        return StepReport(self.step, rate, summed, norm, size(batch))

    def _sum_over_workers(self, losses: Mapping[str, Tensor]) -> None:
        if self.workers.size == 1:
            return
        for parameter in self.parameters:
            if parameter.grad is None:
                parameter.grad = torch.zeros_like(parameter)
        gradients = [p.grad for p in self.parameters if p.grad is not None]
        self.workers.all_reduce([*gradients, *losses.values()])

    def state_dict(self) -> dict[str, Any]:
        """Everything that a later process needs to go on: step, weights, moments, configuration."""
        return {
            "step": self.step,
            "config": dict(vars(self.config)),
            "module": {
                name: value
                for name, value in self.module.state_dict().items()
                if name in self._trained_names()
            },
            "optimizer": self.optimizer.state_dict(),
            "companions": {name: m.state_dict() for name, m in self.companions.items()},
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore ``state_dict``.

        Raises:
            ResumeError: the checkpoint was made with another configuration or other parts.
        """
        now = dict(vars(self.config))
        differs = [
            f"{key}: {state['config'].get(key)!r} then, {now[key]!r} now"
            for key in now
            if state["config"].get(key, _default(self.config, key)) != now[key]
        ]
        if differs:
            raise ResumeError("the checkpoint was made with " + "; ".join(differs))
        expected, found = self._trained_names(), set(state["module"])
        if expected != found:
            raise ResumeError(
                f"the checkpoint lacks {sorted(expected - found)} and "
                f"has {sorted(found - expected)}"
            )
        self.module.load_state_dict(state["module"], strict=False)
        self.optimizer.load_state_dict(state["optimizer"])
        for name, companion in self.companions.items():
            companion.load_state_dict(state["companions"][name])
        self.step = int(state["step"])

    def _trained_names(self) -> set[str]:
        return {name for name, p in self.module.named_parameters() if p.requires_grad}
