"""The doctor's word on a run that is planned: its steps, its workers, its records."""

from __future__ import annotations

from urbandet_ray.training.doctor.examine import examine
from urbandet_ray.training.doctor.findings import Finding
from urbandet_ray.training.doctor.schedule import RATE_FINDINGS
from urbandet_ray.training.plan import TrainPlan


def examine_plan(plan: TrainPlan) -> tuple[Finding, ...]:
    """What is wrong with the pipeline.config as the run trains it; nothing of one's own model.

    What the run does not take from the pipeline.config is left out.
    """
    if plan.pipeline is None:
        return ()
    config = plan.config
    examined = examine(
        plan.pipeline,
        plan.storage,
        data=plan.data,
        steps=plan.steps,
        workers=config.workers.count * config.batch.accumulate,
        min_box_side=config.min_box_side,
    )

    def counts(one: Finding) -> bool:
        own_schedule = config.schedule.kind != "config"
        if one.place.startswith("train_config.optimizer") and own_schedule:
            return plan.rate.of_file and one.code in RATE_FINDINGS
        if one.place.startswith("train_config.data_augmentation_options"):
            return config.augmentation.preset == "config"
        return True

    return tuple(one for one in examined.findings if counts(one))
