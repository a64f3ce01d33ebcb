"""The training loop that every trained part shares: yields metrics, saves and restores its state.

All randomness of a step is derived from ``(seed, step)`` and the learning rate is a function of the
step, so the whole state of a run is the step, the trained tensors and the optimizer's moments. A
run that is killed and restored therefore ends with the same weights, bit for bit, as one that was
not (same machine, same number of threads).
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn

Schedule = Literal["step", "cosine", "trapezoid"]


@dataclass(frozen=True)
class Optimization:
    """AdamW and its schedule; the defaults are the reference run's."""

    steps: int
    learning_rate: float = 1e-3
    betas: tuple[float, float] = (0.9, 0.95)
    weight_decay: float = 0.01
    warmup_steps: int = 0
    schedule: Schedule = "step"
    decay_every: int = 0
    decay_factor: float = 0.1
    gradient_clip: float = 1.0
    accumulate: int = 1
    precision: str = "float32"
    seed: int = 0


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
    drops = step // config.decay_every if config.decay_every else 0
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
    """The loss became NaN or infinite; carries the step and the losses that led there."""

    def __init__(self, step: int, losses: Mapping[str, float]) -> None:
        self.step, self.losses = step, dict(losses)
        super().__init__(
            f"the loss is not finite at step {step}: {self.losses}. Lower the learning rate, raise "
            "the warm-up, or train in float32; the last checkpoint is from before this step."
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


class Trainer:
    """Updates the trainable parameters of ``module`` with the gradients of ``loss``.

    Args:
        module: holds everything that is trained; parameters with ``requires_grad`` off are left be.
        loss: maps a batch to named scalar losses; the one called ``loss`` is minimised.
        config: optimizer and schedule.
        after_step: called after each update, for example to rescale the [IMG] embeddings.
        companions: further modules whose state belongs to the run, such as an average of weights.
    """

    def __init__(
        self,
        module: nn.Module,
        loss: Callable[[Any], Mapping[str, Tensor]],
        config: Optimization,
        after_step: Callable[[], None] | None = None,
        companions: Mapping[str, nn.Module] | None = None,
    ) -> None:
        self.module, self.loss, self.config = module, loss, config
        self.after_step = after_step
        self.companions = dict(companions or {})
        self.parameters = [p for p in module.parameters() if p.requires_grad]
        if not self.parameters:
            raise ValueError("nothing to train: no parameter of the module requires a gradient")
        self.optimizer = torch.optim.AdamW(
            self.parameters,
            lr=config.learning_rate,
            betas=config.betas,
            weight_decay=config.weight_decay,
            fused=True,
        )
        self.step = 0

    def run(self, batches: Iterable[Any], size: Callable[[Any], int] = len) -> Iterator[StepReport]:
        """Yield a report after each update until ``config.steps`` updates are done.

        Args:
            batches: batches from the position ``self.step * config.accumulate`` on.
            size: number of examples in a batch.

        Raises:
            NonFiniteLossError: before the update that a NaN or infinite loss would have made.
        """
        stream = iter(batches)
        while self.step < self.config.steps:
            yield self._update([next(stream) for _ in range(self.config.accumulate)], size)

    def _update(self, parts: list[Any], size: Callable[[Any], int]) -> StepReport:
        torch.manual_seed(self.config.seed * 1_000_003 + self.step)
        rate = learning_rate(self.config, self.step)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        self.module.train()
        self.optimizer.zero_grad(set_to_none=True)
        summed: dict[str, Tensor] = {}
        device = self.parameters[0].device
        for part in parts:
            with autocast(device, self.config.precision):
                losses = self.loss(part)
            (losses["loss"] / len(parts)).backward()
            for name, value in losses.items():
                share = value.detach() / len(parts)
                summed[name] = summed[name] + share if name in summed else share
        if not torch.isfinite(summed["loss"]):
            raise NonFiniteLossError(self.step, {k: float(v) for k, v in summed.items()})
        norm = torch.nn.utils.clip_grad_norm_(self.parameters, self.config.gradient_clip)
        self.optimizer.step()
        if self.after_step is not None:
            self.after_step()
        self.step += 1
        return StepReport(self.step, rate, summed, norm, sum(size(p) for p in parts))

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
            if state["config"].get(key) != now[key]
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
