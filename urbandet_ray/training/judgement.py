"""What a run has learnt of itself: the best mAP, the rate's scale, whether it should end."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from urbandet_ray.config.training_config import TrainConfig
from urbandet_ray.training.guard import DivergenceGuard, EarlyStopping
from urbandet_ray.training.optimisation.schedules import Plateau

ROLLBACK_FACTOR = 0.3
"""What a rollback multiplies the rate by."""


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
