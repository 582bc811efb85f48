"""A worker's records: its share for training, all of the validation frames' labels."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from urbandet_ray.errors import InputError
from urbandet_ray.models.model_cache import cache_folder
from urbandet_ray.records.sources import Source
from urbandet_ray.training.augmentation.presets import augmentation
from urbandet_ray.training.data.batches import train_dataset, validation_dataset
from urbandet_ray.training.data.record_index import RecordIndex, build_index, share_of_worker
from urbandet_ray.training.data.record_scan import BadRecord, Checks
from urbandet_ray.training.data.sampler import Sampler, repeat_factors
from urbandet_ray.training.data.validation import ValidationSet, read_validation_set
from urbandet_ray.training.model import Tensors, TrainableModel
from urbandet_ray.training.odapi_model import OdApiModel
from urbandet_ray.training.place import Place
from urbandet_ray.training.plan import TrainPlan


class Feed:
    """Batches to learn from, and frames to be judged by.

    Attributes:
        frames: the validation frames, on every worker.
    """

    def __init__(self, plan: TrainPlan, place: Place, model: TrainableModel) -> None:
        self._plan, self._place, self._model = plan, place, model
        self._threads = max(2, place.threads or 2)
        self._records = self._index(plan.train, place.rank, place.world, model.num_classes)
        self._validation = self._index(plan.val, 0, 1, None)
        count = len(self._validation)
        if not count:
            raise InputError("no validation record can be read: there is nothing to judge by")
        most = min(plan.config.evaluation.frames or count, count)
        self._chosen = np.linspace(0, count - 1, most).astype(np.int64)  # spread over all drives
        self.frames: ValidationSet = read_validation_set(
            lambda number: self._validation.read(int(self._chosen[number])),
            most,
            model.num_classes,
        )
        threshold = plan.config.augmentation.repeat_threshold
        repeat = repeat_factors(self._records.class_presence, threshold) if threshold else None
        self._sampler = Sampler(
            len(self._records), plan.batch_size, plan.config.seed, place.rank, repeat
        )

    @property
    def bad(self) -> Sequence[BadRecord]:
        """Training records that are left out."""
        return self._records.bad

    @property
    def foreign(self) -> int:
        """Training boxes that are left out: of classes that the label map does not have."""
        return self._records.foreign

    def epoch(self, step: int) -> float:
        """Epochs done by an optimizer step."""
        return self._sampler.epoch(step * self._plan.config.batch.accumulate)

    def batches(self, step: int) -> Any:
        """An endless dataset of (features, labels) from an optimizer step on."""
        config, message = self._plan.config, self._plan.pipeline_message()
        augment = augmentation(
            config.augmentation.preset,
            self._model.input_size_hw,
            message.train_config.data_augmentation_options if message is not None else (),
        )
        if isinstance(self._model, OdApiModel):
            self._model.make_room(augment.most_boxes(self._records.boxes))
        return train_dataset(
            self._records,
            self._sampler,
            self._model,
            augment,
            step * config.batch.accumulate,
            threads=self._threads,
            masks=self._model.learns_masks,
        )

    def validation(self) -> Iterator[tuple[Tensors, list[int]]]:
        """This worker's share of the validation frames in batches, with their numbers."""
        share = self.frames.share(self._place.rank, self._place.world)
        number_of = {int(self._chosen[number]): number for number in share.tolist()}
        dataset = validation_dataset(
            self._validation,
            self._chosen[share],
            self._model,
            self._plan.config.evaluation.batch_size,
            threads=self._threads,
        )
        for features, records in dataset:
            yield features, [number_of.get(record, -1) for record in records.numpy().tolist()]

    def _index(
        self, sources: Sequence[Source], rank: int, world: int, num_classes: int | None
    ) -> RecordIndex:
        config = self._plan.config
        return build_index(
            share_of_worker(sources, rank, world),
            self._plan.storage,
            Path(config.cache) if config.cache else cache_folder() / "records",
            num_classes=num_classes,
            checks=Checks(masks=self._model.learns_masks, labels=self._plan.labels),
            max_bad_records=config.max_bad_records,
            threads=self._threads,
        )
