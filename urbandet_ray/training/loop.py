"""What every worker does. The whole run, in one screen:

    worker = Worker(plan, place)               model, optimizer, records; from the last checkpoint
    while the step is below the plan's:
        batch -> losses -> clipped gradients -> optimizer at the schedule's rate
        where due: mAP on all workers together, best/, early stopping; last/; a log line

A worker that is lost takes the others down with it; Ray Train starts all of them anew, and they go
on from last/, at the very step, with the very records that come next.
"""

from __future__ import annotations

from urbandet_ray.errors import RunError
from urbandet_ray.training.checkpoints import BEST, LAST
from urbandet_ray.training.data.validation import detect_share, frame_results, score
from urbandet_ray.training.optimisation.step import StepResult
from urbandet_ray.training.place import Meter, Place
from urbandet_ray.training.plan import TrainPlan
from urbandet_ray.training.worker import Worker

LOG_EVERY_S = 10.0
RECLAIM_EVERY_STEPS = 20
"""Steps between two looks for a notice that a node will be taken away; all workers look at once."""


def train(plan: TrainPlan, place: Place) -> None:
    """Train on this worker, with all others, until the plan's last step or an early stop.

    Raises:
        RunError: the loss diverged, and the plan does not roll back (any more).
        UrbandetError: whatever else a person has to mend.
    """
    worker = Worker(plan, place)
    meter = Meter(plan.images_a_step(place.world))
    unread: tuple[int, StepResult] | None = None
    try:
        while worker.step < plan.steps and not worker.judgement.early.should_stop:
            with meter.waiting():
                batches = worker.next_batches()
            rate = worker.set_rate()
            result = worker.train_step(batches)
            worker.step += 1
            sound = unread is None or _is_sound(worker, meter, *unread)
            unread = (worker.step, result)  # read while the next step is computed
            due = _due(worker.step, plan) if sound else ()
            if sound and (due or meter.elapsed() >= LOG_EVERY_S):
                sound, unread = _is_sound(worker, meter, *unread), None
            if not sound:  # the run went back to its last checkpoint
                unread = None
                meter.restart()
                continue
            if unread is None:
                worker.log(meter.take(), rate)
            if "evaluate" in due:
                evaluate(worker)
            if ("checkpoint" in due and _is_worth_keeping(worker)) or _is_reclaimed(worker):
                worker.save(LAST)
            if due:
                meter.restart()
        if worker.judgement.evaluated_at != worker.step:
            evaluate(worker)
            worker.save(LAST)
        worker.report_pruning()
    finally:
        worker.close()


def evaluate(worker: Worker) -> None:
    """mAP with the weights that would be exported; they become best/ where it is the best."""
    labels = worker.plan.labels
    with worker.weights_to_judge():
        rows = worker.gather(detect_share(worker.detect, worker.feed.validation()))
        results = frame_results(rows, worker.feed.frames, labels)
        metrics = score(results, labels)
        worker.forget_denser_best()
        is_best = worker.judgement.observe(worker.step, metrics.map)
        if is_best:
            worker.save(BEST, model_only=True)
    if worker.board is not None:
        worker.board.evaluation(worker.step, metrics, results, is_best)
        worker.show(results)
        if worker.judgement.early.should_stop:
            worker.board.event(worker.step, worker.judgement.early.message())
    worker.place.report({"step": worker.step, "mAP": metrics.map, "AP50": metrics.ap50})


def _due(step: int, plan: TrainPlan) -> tuple[str, ...]:
    """What comes behind a step."""
    end = step == plan.steps
    evaluates = step % plan.evaluate_every == 0 or end
    saves = evaluates or step % plan.checkpoint_every == 0
    return (("evaluate",) if evaluates else ()) + (("checkpoint",) if saves else ())


def _is_sound(worker: Worker, meter: Meter, step: int, result: StepResult) -> bool:
    """Read a step's losses; False where the run went back to its last checkpoint.

    Raises:
        RunError: the loss diverged for good.
    """
    losses, norm = result.figures()
    meter.add(losses, norm)
    guard = worker.judgement.guard
    trouble = guard.check(step, losses["total"], norm, worker.rate)
    if trouble is None:
        return True
    if not worker.roll_back(step, trouble):
        raise RunError(trouble)
    return False


def _is_worth_keeping(worker: Worker) -> bool:
    """A rollback would find ruined weights behind a loss that is about to blow up; how the run ends
    is kept all the same."""
    ends = worker.step == worker.plan.steps or worker.judgement.early.should_stop
    return ends or not worker.judgement.guard.in_doubt


def _is_reclaimed(worker: Worker) -> bool:
    """Whether a node of this run is about to be taken away; said once."""
    if worker.reclaim_told or worker.step % RECLAIM_EVERY_STEPS:
        return False
    worker.reclaim_told = worker.place.reclaimed()
    return worker.reclaim_told
