"""A worker's parts put together from the plan, and what the loop asks of them."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from urbandet_ray.models.odapi import open_odapi
from urbandet_ray.rendering.annotate import Annotator
from urbandet_ray.runs.detections_table import DetectionRow
from urbandet_ray.training.board import Board
from urbandet_ray.training.building import build, build_schedule, start_weights
from urbandet_ray.training.checkpoints import BEST, RestorePoint, RunCheckpoints
from urbandet_ray.training.data.feed import Feed
from urbandet_ray.training.data.validation import Rows, gather_rows
from urbandet_ray.training.judgement import Judgement
from urbandet_ray.training.optimisation.batchnorm import (
    REESTIMATE_BATCHES,
    kept_averages,
    reestimate,
    settled,
)
from urbandet_ray.training.optimisation.pruning import (
    REPORT_NAME,
    overall_sparsity,
    report_text,
    sizes_bytes,
    sizes_text,
    stored_layers,
    stored_weights,
)
from urbandet_ray.training.optimisation.step import (
    Batch,
    make_detect,
    make_forward,
    make_step,
)
from urbandet_ray.training.place import Place
from urbandet_ray.training.plan import TrainPlan

_SHOWN_FRAMES = 4
_SHOWN_SCORE = 0.3


class Worker:
    """What one worker holds between steps.

    Attributes:
        step: optimizer steps done.
        rate: learning rate of the step under way.
        feed: its records.
        judgement: what the run has learnt of itself; the same on all workers.
        board: the log; None on all workers but the first.
        train_step, detect: run in TensorFlow's graph (step.py).
    """

    def __init__(self, plan: TrainPlan, place: Place) -> None:
        self.plan, self.place = plan, place
        self.step, self.rate = 0, 0.0
        self.reclaim_told = False
        self.scratch = Path(tempfile.mkdtemp(prefix="urbandet-worker-"))
        self.judgement = Judgement.of(plan.config)
        self.board: Board | None = None
        self.checkpoints = RunCheckpoints(
            plan.run_uri,
            plan.storage,
            self.scratch / "checkpoints",
            carries=place.rank == 0,
            alone=place.world == 1,
            keep=plan.config.checkpoint.keep,
            beside=lambda: self.board.bring() if self.board is not None else None,
        )
        self._built = build(plan, place)
        self.feed = Feed(plan, place, self._built.model)
        self._schedule = build_schedule(plan, place.world)
        self._counter, self._checkpoint, self._model_checkpoint = self._trackables()
        self._start()
        model, strategy = self._built.model, self._built.strategy
        self.train_step = make_step(
            model,
            self._built.optimizer,
            self._built.trained.variables,
            strategy,
            clip_norm=plan.clip_norm,
            after=self._after_update,
            xla=plan.config.xla,
        )
        self.detect = make_detect(model, strategy)
        self._forward = make_forward(model, strategy)
        self._batches = iter(self.feed.batches(self.step))

    def next_batches(self) -> list[Batch]:
        """The batches of the next step."""
        return [next(self._batches) for _ in range(self.plan.config.batch.accumulate)]

    def set_rate(self) -> float:
        """Give the optimizer the rate of the step that comes next."""
        self.rate = self._schedule(self.step) * self.judgement.rate_scale
        self._built.optimizer.learning_rate.assign(self.rate)
        self._counter.assign(self.step)
        if self._built.pruner is not None:
            self._built.pruner.update(self.step)
        return self.rate

    def log(self, figures: dict[str, float], rate: float) -> None:
        """A line of the log, and one for the person who watches."""
        if self.board is not None:
            epoch = self.feed.epoch(self.step)
            self.board.steps(self.step, {**figures, "rate": rate, "epoch": epoch})

    @contextmanager
    def weights_to_judge(self) -> Iterator[None]:
        """While this is open the model has the weights that would be exported: averaged ones, and
        batch-norm averages that were measured with them."""
        built = self._built
        count = self.plan.config.batch_norm.reestimate_batches
        if count is None:
            unsettled = self.plan.fine_tune is None and not settled(
                built.model.batch_norms, self.step
            )
            count = REESTIMATE_BATCHES if unsettled else 0
        with ExitStack() as opened:
            if built.average is not None:
                opened.enter_context(built.average.swapped())
                if built.pruner is not None:
                    built.pruner.apply()  # an average of what became zero is only nearly zero
            if count:
                opened.enter_context(kept_averages(built.model.batch_norms))
                batches = iter(self.feed.batches(self.step))
                reestimate(built.model.batch_norms, lambda: self._forward(*next(batches)), count)
            yield

    def gather(self, rows: Rows) -> Rows:
        """Detections of all workers."""
        return gather_rows(rows, self._built.strategy, self.place.rank)

    def show(self, results: Sequence[DetectionRow]) -> None:
        """A few validation frames with detections and truth, for TensorBoard."""
        if self.board is None:
            return
        frames = self.feed.frames
        annotator = Annotator(self.plan.labels, draw_truth=True)
        places = np.linspace(0, len(frames) - 1, _SHOWN_FRAMES).astype(int)
        pictures = []
        for number in sorted(set(places.tolist())):
            seen = results[number].detections.above(_SHOWN_SCORE)
            pixels = np.array(frames.image(number))
            pictures.append(annotator.annotate(pixels, seen, frames.truths[number]))
        same = [one for one in pictures if one.shape == pictures[0].shape]
        self.board.images(self.step, np.stack(same))

    def save(self, kind: str, *, model_only: bool = False) -> None:
        """A checkpoint of everything, or of the model alone."""
        checkpoint = self._model_checkpoint if model_only else self._checkpoint
        state = {"step": self.step, "world": self.place.world, **self.judgement.to_dict()}
        self.checkpoints.save(kind, checkpoint, state)

    def roll_back(self, step: int, trouble: str) -> bool:
        """Go back to the last checkpoint at a lower rate; False where the plan has no more."""
        given, done = self.plan.config.divergence, self.judgement.rollbacks
        self.checkpoints.wait()
        self.place.report({"step": step})  # a barrier: the first worker's checkpoint has arrived
        point = self.checkpoints.restore_point()
        if given.action != "rollback" or done >= given.rollbacks or point is None:
            return False
        self._restore(point)
        self.judgement.rollbacks = done + 1
        self._batches = iter(self.feed.batches(self.step))
        if self.board is not None:
            self.board.close()
            self._open_board()  # its lines of the steps that are done again are taken back
            scale = self.judgement.rate_scale
            self.board.event(
                self.step, f"back to step {self.step} at {scale:.2g} of the rate: {trouble}"
            )
        return True

    def forget_denser_best(self) -> None:
        """Let an mAP of before the full sparsity count no more: what is exported is to have it, and
        pruning on the way there is no reason to stop early."""
        judgement, pruner = self.judgement, self._built.pruner
        if pruner is None or judgement.best is None or judgement.best["step"] > pruner.end:
            return
        judgement.forget_best()

    def report_pruning(self) -> None:
        """Write what is zero in best/, which is what is exported, and what its weights take."""
        if self._built.pruner is None or self.board is None:
            return
        self.checkpoints.wait()
        point = self.checkpoints.restore_point(BEST)
        if point is None:
            return  # somebody has taken it away
        weights = stored_weights(str(point.prefix))
        layers = stored_layers(weights, [one.name for one in self._built.pruner.report()])
        sizes = sizes_bytes([values for _, values in weights])
        parts = (
            f"{BEST}/ of step {point.step}: zeros, weights, kernel",
            report_text(layers),
            "",
            "all weights of the model",
            sizes_text(sizes),
            "",
        )
        self.plan.storage.write_bytes(self.plan.path(REPORT_NAME), "\n".join(parts).encode())
        share, count = overall_sparsity(layers), sum(one.size for one in layers)
        told = f"{share:.1%} of {count:,} weights in {len(layers)} kernels are zero"
        self.board.event(self.step, f"pruned: {told} ({REPORT_NAME})")

    def close(self) -> None:
        """Let what is under way arrive, and clean up."""
        try:
            self.checkpoints.close()
            if self.board is not None:
                self.board.close()
        finally:
            shutil.rmtree(self.scratch, ignore_errors=True)

    def _trackables(self) -> tuple[Any, Any, Any]:
        """The step as a variable, and the checkpoints of everything and of the model."""
        tf, built = open_odapi().tf, self._built
        with built.strategy.scope():
            first = tf.VariableAggregation.ONLY_FIRST_REPLICA
            counter = tf.Variable(0, trainable=False, dtype=tf.int64, aggregation=first)
            parts = {"model": built.model.trackable, "optimizer": built.optimizer, "step": counter}
            if built.average is not None:
                parts["average"] = built.average
            whole = tf.train.Checkpoint(**parts)
            return counter, whole, tf.train.Checkpoint(model=built.model.trackable)

    def _start(self) -> None:
        """From the last checkpoint of this run, or else from what the plan starts from."""
        plan, place = self.plan, self.place
        point = self.checkpoints.restore_point()
        if point is not None:
            self._restore(point)
            told = f"resumed from the checkpoint of step {point.step}"
        else:
            told = start_weights(plan, self._built.model, self.scratch)
            if self._built.average is not None:
                self._built.average.restart()
        if place.rank == 0:
            board = self._open_board()
            board.event(self.step, told)
            board.event(self.step, self._built.trained.told())
            board.event(self.step, plan.rate.told(plan.images_a_step(place.world)))
            for bad in self.feed.bad:
                board.event(self.step, f"left out: {bad}")
            if self.feed.foreign:
                board.event(
                    self.step,
                    f"left out: {self.feed.foreign:,} boxes of classes that the label map does not "
                    "have",
                )

    def _open_board(self) -> Board:
        """The log, up to the step that the run goes on from."""
        plan, folder = self.plan, self.scratch / "log"
        self.board = Board(plan.run_uri, plan.storage, folder, self.step, self.place.notice)
        return self.board

    def _restore(self, point: RestorePoint) -> None:
        with self._built.strategy.scope():
            self._checkpoint.read(str(point.prefix)).assert_existing_objects_matched()
        self.step = point.step
        self.judgement = Judgement.of(self.plan.config)
        self.judgement.resume(point.state)

    def _after_update(self) -> None:
        """In the graph, behind each update."""
        if self._built.pruner is not None:
            self._built.pruner.apply()
        if self._built.average is not None:
            self._built.average.update(self._counter)
