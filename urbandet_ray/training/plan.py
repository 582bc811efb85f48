"""All that a worker needs to know of a run; small enough to travel to every one."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from urbandet_ray.config.training_config import TrainConfig
from urbandet_ray.labels import LabelMap
from urbandet_ray.models.pipeline_config import PipelineConfig
from urbandet_ray.records.data_folder import DataFolder
from urbandet_ray.records.source import Source
from urbandet_ray.storage import Storage, join_uri
from urbandet_ray.training.optimisation.rates import PlannedRate

PIPELINE_NAME, LABELS_NAME, DONE_NAME = "pipeline.config", "label_map.pbtxt", "result.json"


@dataclass(frozen=True)
class TrainPlan:
    """One training run, resolved: nothing is left to the defaults.

    Attributes:
        run_uri: the run folder.
        config: as given.
        pipeline: the pipeline.config as it is trained; None for a model of the user's own.
        data: the folder it is trained on; None where the pipeline.config's own paths are read.
        labels: the data's classes.
        train, val: where frames are read from.
        steps: optimizer steps of the whole run.
        batch_size: images a worker computes at a time.
        evaluate_every, checkpoint_every: steps.
        rate: the highest learning rate, and where it comes from.
        clip_norm: gradients are scaled down to this global norm; 0 is off.
        fine_tune: prefix of the checkpoint to start from, local or s3://; None is random weights.
    """

    run_uri: str
    storage: Storage
    config: TrainConfig
    pipeline: PipelineConfig | None
    data: DataFolder | None
    labels: LabelMap
    train: tuple[Source, ...]
    val: tuple[Source, ...]
    steps: int
    batch_size: int
    evaluate_every: int
    checkpoint_every: int
    rate: PlannedRate
    clip_norm: float
    fine_tune: str | None

    @property
    def num_classes(self) -> int:
        """Highest class id."""
        return max(self.labels.names)

    def images_a_step(self, workers: int) -> int:
        """Images of one optimizer step."""
        return self.batch_size * self.config.batch.accumulate * workers

    def path(self, *parts: str) -> str:
        """URI of a file in the run folder."""
        return join_uri(self.run_uri, *parts)

    def pipeline_message(self) -> Any:
        """The pipeline.config as a message; None for a model of the user's own."""
        return None if self.pipeline is None else self.pipeline.message
