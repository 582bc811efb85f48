"""How a run is judged: after each evaluation by its mAP, after each step by its loss."""

from __future__ import annotations

import math
from collections import deque
from dataclasses import dataclass, field, replace
from statistics import median
from typing import Any

from urbandet_ray.config.training_config import TrainConfig

ROLLBACK_FACTOR = 0.3
"""What a rollback multiplies the rate by."""

_WINDOW, _ENOUGH, _IN_A_ROW = 50, 10, 3
_OVERFLOWS_IN_A_ROW = 30


@dataclass(frozen=True)
class EarlyStopping:
    """Counts evaluations without a better mAP.

    Attributes:
        patience: so many end the run; None never does.
        best, best_step, waited: the best mAP, where it was, and evaluations since.
    """

    patience: int | None = None
    best: float = -math.inf
    best_step: int = 0
    waited: int = 0

    def observe(self, figure: float, step: int) -> EarlyStopping:
        """The state after an evaluation."""
        if figure > self.best:
            return replace(self, best=figure, best_step=step, waited=0)
        return replace(self, waited=self.waited + 1)

    @property
    def should_stop(self) -> bool:
        """Whether patience is at its end."""
        return self.patience is not None and self.waited >= self.patience

    def message(self) -> str:
        """Why the run ends."""
        return (
            f"stopped early: no mAP above {self.best:.3f} (step {self.best_step}) in "
            f"{self.waited} evaluations"
        )

    def to_dict(self) -> dict[str, Any]:
        """For a checkpoint."""
        best = None if math.isinf(self.best) else self.best
        return {"best": best, "best_step": self.best_step, "waited": self.waited}

    def resumed(self, state: dict[str, Any]) -> EarlyStopping:
        """With the state of a checkpoint."""
        best = -math.inf if state["best"] is None else state["best"]
        return replace(self, best=best, best_step=state["best_step"], waited=state["waited"])


@dataclass(frozen=True)
class Plateau:
    """Lowers the rate where the mAP stops rising.

    Attributes:
        factor: what the rate is multiplied by.
        patience: evaluations without a better mAP before it is.
        scale: of the rate now.
        best, waited: the best mAP so far, and evaluations since.
    """

    factor: float = 0.1
    patience: int = 3
    scale: float = 1.0
    best: float = -math.inf
    waited: int = 0

    def observe(self, figure: float) -> Plateau:
        """The state after an evaluation."""
        if figure > self.best:
            return replace(self, best=figure, waited=0)
        if self.waited + 1 < self.patience:
            return replace(self, waited=self.waited + 1)
        return replace(self, waited=0, scale=self.scale * self.factor)

    def to_dict(self) -> dict[str, Any]:
        """For a checkpoint."""
        best = None if math.isinf(self.best) else self.best
        return {"scale": self.scale, "best": best, "waited": self.waited}

    def resumed(self, state: dict[str, Any]) -> Plateau:
        """With the state of a checkpoint."""
        best = -math.inf if state["best"] is None else state["best"]
        return replace(self, scale=state["scale"], best=best, waited=state["waited"])


class DivergenceGuard:
    """Watches the loss: not finite at once, or far above its recent median several steps in a row.

    Args:
        factor: a loss this many times the median of the last 50 counts as blown up.
        loss_scaled: a gradient that is not finite is how a scale is found, and such a step changes
            nothing: only 30 in a row are trouble. Without a scale the first has ruined the weights.
    """

    def __init__(self, factor: float = 10.0, *, loss_scaled: bool = True) -> None:
        self._factor = factor
        self._overflows_allowed = _OVERFLOWS_IN_A_ROW if loss_scaled else 1
        self._overflows = 0
        self._recent: deque[float] = deque(maxlen=_WINDOW)
        self._high = 0

    def check(self, step: int, loss: float, gradient_norm: float, rate: float) -> str | None:
        """What is wrong and what to do about it; None where nothing is."""
        self._overflows = 0 if math.isfinite(gradient_norm) else self._overflows + 1
        if not math.isfinite(loss) or self._overflows >= self._overflows_allowed:
            was = f", median before {median(self._recent):.3g}" if self._recent else ""
            return (
                f"step {step}: the loss is {loss} (gradient norm {gradient_norm:.3g}, "
                f"rate {rate:.3g}{was}). {self._advice()}"
            )
        usual = max(median(self._recent), 1e-6) if len(self._recent) >= _ENOUGH else math.inf
        if loss <= self._factor * usual:
            self._recent.append(loss)
            self._high = 0
            return None
        self._high += 1
        if self._high < _IN_A_ROW:
            return None
        return (
            f"step {step}: the loss blew up to {loss:.3g}, {loss / usual:.1f} times what it was "
            f"({usual:.3g}; gradient norm {gradient_norm:.3g}, rate {rate:.3g}). {self._advice()}"
        )

    @property
    def in_doubt(self) -> bool:
        """Whether the last loss was far too high, so far not often enough to be trouble."""
        return self._high > 0

    def to_dict(self) -> dict[str, Any]:
        """For a checkpoint."""
        return {"recent": list(self._recent)}

    def resume(self, state: dict[str, Any]) -> None:
        """Go on from a checkpoint's state."""
        self._recent.clear()
        self._recent.extend(state["recent"])
        self._high = self._overflows = 0

    @staticmethod
    def _advice() -> str:
        return (
            "Lower schedule.rate, lengthen schedule.warmup_share, set optimizer.clip_norm (10 is "
            "usual), or precision: bfloat16 where it is float16; divergence.action: rollback goes "
            "back to the last checkpoint by itself"
        )


@dataclass
class Judgement:
    """Changes with every evaluation; a checkpoint remembers it.

    Attributes:
        best: {"step", "mAP"} of the best evaluation; None before the first.
        last_map: of the last evaluation; None where the frames hold no boxes.
        evaluated_at: its step.
        rollbacks: how often the run went back to a checkpoint.
    """

    early: EarlyStopping
    plateau: Plateau
    guard: DivergenceGuard
    best: dict[str, Any] | None = None
    last_map: float | None = None
    evaluated_at: int = -1
    rollbacks: int = 0
    lowers_rate: bool = field(default=False, kw_only=True)

    @classmethod
    def of(cls, config: TrainConfig) -> Judgement:
        """At the start of a run."""
        return cls(
            EarlyStopping(config.evaluation.patience),
            Plateau(factor=config.schedule.factor, patience=config.schedule.patience),
            DivergenceGuard(config.divergence.factor, loss_scaled=config.precision == "float16"),
            lowers_rate=config.schedule.kind == "plateau",
        )

    @property
    def rate_scale(self) -> float:
        """What plateaus and rollbacks left of the rate."""
        return self.plateau.scale * ROLLBACK_FACTOR**self.rollbacks

    def observe(self, step: int, figure: float | None) -> bool:
        """Take an mAP down; whether it is the best so far."""
        value = -1.0 if figure is None else figure
        is_best = self.best is None or value > self.best["mAP"]
        if is_best:
            self.best = {"step": step, "mAP": value}
        self.last_map, self.evaluated_at = figure, step
        self.early = self.early.observe(value, step)
        if self.lowers_rate:
            self.plateau = self.plateau.observe(value)
        return is_best

    def forget_best(self) -> None:
        """Let no mAP of before count any more: what was judged then is not what is wanted."""
        self.best = None
        self.early = replace(self.early, best=-math.inf)
        self.plateau = replace(self.plateau, best=-math.inf)

    def to_dict(self) -> dict[str, Any]:
        """For a checkpoint's state.json."""
        return {
            "mAP": self.last_map,
            "best": self.best,
            "evaluated_at": self.evaluated_at,
            "rollbacks": self.rollbacks,
            "early": self.early.to_dict(),
            "plateau": self.plateau.to_dict(),
            "guard": self.guard.to_dict(),
        }

    def resume(self, state: dict[str, Any]) -> None:
        """Go on from a checkpoint's state."""
        self.last_map, self.best = state["mAP"], state["best"]
        self.evaluated_at, self.rollbacks = state["evaluated_at"], state["rollbacks"]
        self.early = self.early.resumed(state["early"])
        self.plateau = self.plateau.resumed(state["plateau"])
        self.guard.resume(state["guard"])
