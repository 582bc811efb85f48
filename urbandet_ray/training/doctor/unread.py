"""Settings of TF1's programs, which a pipeline.config may hold and no TF2 training reads."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from urbandet_ray.training.doctor.case import Case
from urbandet_ray.training.doctor.findings import Finding

_FIELDS = ("freeze_variables", "update_trainable_variables")


def check_unread(case: Case) -> Iterator[Finding]:
    """Layers that their author believes to be frozen, a network that is believed to be rounded
    (model_lib.py reads these, model_lib_v2.py does not)."""
    if case.config.HasField("graph_rewriter"):
        yield case.finding(
            "warning",
            "rewrites-nothing",
            "graph_rewriter",
            "graph_rewriter trains with simulated int8 in TF1 alone: neither the OD API's TF2 loop "
            "nor urbandet train reads it, the network is trained and exported in float32",
            "leave it out; urbandet export --precision int8 --calibrate DATA rounds a trained one",
            _without_rewriter,
        )
    train = case.config.train_config
    for name in _FIELDS:
        patterns = list(getattr(train, name))
        if patterns:
            yield case.finding(
                "warning",
                "freezes-nothing",
                f"train_config.{name}",
                f"{len(patterns)} patterns ({', '.join(patterns[:3])}) choose what is trained in "
                "TF1 alone: neither the OD API's TF2 loop nor urbandet train reads them, all "
                "variables are trained",
                "leave it out, and set freeze in a run config: regular expressions on TF2's names",
            )


def _without_rewriter(config: Any) -> None:
    config.ClearField("graph_rewriter")
