"""Starts the workers under Ray Train, watches them, and says how the run ended."""

from __future__ import annotations

import contextlib
import tempfile
import threading
import traceback
from collections.abc import Callable
from pathlib import PurePosixPath
from typing import Any

from urbandet_ray.config.sizing import lacking_room, worker_bundle
from urbandet_ray.errors import RunError, UrbandetError, first_line
from urbandet_ray.models.odapi import KERAS_2
from urbandet_ray.training.plan import TrainPlan

_LOOK_EVERY_S = 0.5
_LINES_OF_A_FAILURE = 12
_PARTS_OF_A_TRACE = 4
_TRACED = "in user code:"
"""How TensorFlow begins an error of a function that it traces; the function's lines follow."""
_PASSING = frozenset(
    {
        "AbortedError",
        "CancelledError",
        "DeadlineExceededError",
        "FailedPreconditionError",
        "InternalError",
        "UnavailableError",
        "UnknownError",
    }
)
"""TensorFlow's errors of a connection, or a device, that broke."""


def run_workers(
    plan: TrainPlan, on_notice: Callable[[dict[str, Any]], None], *, grows: bool = True
) -> None:
    """Train with the plan's workers on the Ray that is initialised; returns when they are done.

    Lost workers are made up for, as often as the plan allows.

    Args:
        on_notice: gets the entries of metrics.jsonl as they are written, and {"kind": "start"}
            each time the workers begin. {"kind": "waiting"} says why they do not begin yet.
        grows: whether nodes may join this Ray, so that it is worth waiting for room.

    Raises:
        RunError: a worker's message to the person who started the run, too many workers lost, or no
            room for them on a Ray that does not grow.
    """
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    nodes = _nodes()
    bundle = worker_bundle(plan.config.workers, nodes)
    if lacks := lacking_room(plan.config.workers, bundle, nodes):
        if not grows:
            raise RunError(
                f"{lacks}: ask for less (workers.count, workers.gpus, workers.cpus), or run on a "
                "cluster (ray.address)"
            )
        on_notice({"kind": "waiting", "text": f"{lacks}: waiting for nodes to join"})
    here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
    # beside the driver: with a worker's node the run would lose it, and every later try with it
    notices = _notices_class().options(num_cpus=0, scheduling_strategy=here).remote()
    ended = threading.Event()
    outcome: list[BaseException] = []

    def fit() -> None:
        try:
            _trainer(plan, notices, bundle).fit()
        except BaseException as error:
            outcome.append(error)
        finally:
            ended.set()

    thread = threading.Thread(target=fit, name="ray-train", daemon=True)
    thread.start()
    failure: str | None = None
    while True:
        last = ended.wait(_LOOK_EVERY_S)
        with contextlib.suppress(ray.exceptions.RayError):
            for notice in ray.get(notices.take.remote()):
                if notice["kind"] == "failure":
                    failure = failure or notice["text"]
                on_notice(notice)
        if last:
            break
    thread.join()
    if failure is not None:
        raise RunError(failure)
    if outcome:
        raise RunError(_explain(outcome[0], plan)) from None


def _trainer(plan: TrainPlan, notices: Any, bundle: dict[str, float]) -> Any:
    from ray.train import FailureConfig, RunConfig, ScalingConfig
    from ray.train.tensorflow import TensorflowTrainer

    workers = plan.config.workers
    count: int | tuple[int, int] = workers.count
    if workers.min is not None and workers.min < workers.count:
        count = (workers.min, workers.count)
    places = [_own_node(), *[{}] * (workers.count - 1)] if workers.first_here else None
    return TensorflowTrainer(
        train_on_worker,
        train_loop_config={"plan": plan, "notices": notices},
        scaling_config=ScalingConfig(
            num_workers=count,
            use_gpu=bool(workers.gpus),
            resources_per_worker=bundle,
            label_selector=places,  # ranks follow its order
        ),
        run_config=RunConfig(
            name=PurePosixPath(plan.run_uri).name or "run",
            storage_path=tempfile.mkdtemp(prefix="urbandet-train-"),  # checkpoints are ours
            failure_config=FailureConfig(max_failures=workers.max_failures),
            # Ray Train imports TensorFlow before our code runs; a Ray started by somebody else
            # has no such variable for its workers to inherit
            worker_runtime_env={"env_vars": KERAS_2},
        ),
    )


def _own_node() -> dict[str, str]:
    """The label of the node that this process is on."""
    import ray

    return {"ray.io/node-id": ray.get_runtime_context().get_node_id()}


def _nodes() -> list[dict[str, float]]:
    """Resources of each node alive, this process's own first."""
    import ray

    here = ray.get_runtime_context().get_node_id()
    alive = [node for node in ray.nodes() if node["Alive"]]
    alive.sort(key=lambda node: node["NodeID"] != here)
    return [node["Resources"] for node in alive]


def train_on_worker(settings: dict[str, Any]) -> None:
    """What Ray Train runs in each worker's process."""
    import ray
    import ray.train

    from urbandet_ray.training.loop import train
    from urbandet_ray.training.place import Place

    plan, notices = settings["plan"], settings["notices"]
    if ray.get(notices.failed.remote()):
        return  # a person has to mend it: trying again would only cost
    context = ray.train.get_context()
    rank, world = context.get_world_rank(), context.get_world_size()
    place = Place(
        rank=rank,
        world=world,
        threads=int(ray.get_runtime_context().get_assigned_resources().get("CPU", 1)),
        notice=notices.post.remote,
        report=ray.train.report,
        reclaimed=lambda: ray.train.get_preemption_info() is not None,
    )
    if rank == 0:
        place.notice({"kind": "start", "workers": world, "threads": place.threads})
    try:
        train(plan, place)
    except Exception as error:
        if (text := failure_text(error)) is not None:
            ray.get(notices.post.remote({"kind": "failure", "text": text}))
        raise


def failure_text(error: Exception) -> str | None:
    """What to tell of an error that would be the same on every try; None where a try may help.

    A worker that is lost ends without an error of its own. The others see their connection to it
    break, which TensorFlow tells by these errors.
    """
    import ray

    if isinstance(error, UrbandetError):
        return str(error)
    kind = type(error).__name__
    broken = kind in _PASSING or "ollective op" in str(error)
    if broken or isinstance(error, OSError | ray.exceptions.RayError):
        return None
    said, trace = first_line(error), "".join(traceback.format_exception(error)[-_PARTS_OF_A_TRACE:])
    if said == _TRACED:
        trace = str(error)
        said = trace.strip().rpartition("\n")[2].strip().removeprefix(f"{kind}: ")
    trace = trace.rstrip().replace("\n", "\n  ")
    return (
        f"training stopped with {kind}: {said}. The same would happen on every try, "
        f"so it was not tried again. Where it happened:\n  {trace}"
    )


def _notices_class() -> Any:
    import ray

    @ray.remote
    class Notices:
        """Passes what the workers tell on to the driver."""

        def __init__(self) -> None:
            self._waiting: list[dict[str, Any]] = []
            self._failed = False

        def post(self, notice: dict[str, Any]) -> None:
            self._failed = self._failed or notice["kind"] == "failure"
            self._waiting.append(notice)

        def take(self) -> list[dict[str, Any]]:
            taken, self._waiting = self._waiting, []
            return taken

        def failed(self) -> bool:
            return self._failed

    return Notices


def _explain(error: BaseException, plan: TrainPlan) -> str:
    """The end of a worker's traceback: what a person needs of it is at its bottom."""
    lines = [line for line in str(error).splitlines() if line.strip()][-_LINES_OF_A_FAILURE:]
    return (
        f"training stopped after {plan.config.workers.max_failures} lost workers "
        f"(workers.max_failures). What the last one said:\n  "
        + "\n  ".join(lines)
        + f"\nThe run resumes from {plan.path('last')}: repeat the command when it is mended"
    )
