"""A run that has gone silent: what it waits for is said, and no wait is for ever."""

from __future__ import annotations

import logging
import queue
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

from urbandet_ray.errors import RunError

Item = TypeVar("Item")

_LOOK_EVERY_S = 10.0
_SAID_EVERY_S = 60.0
_LOOKS_WITHOUT_NODES = 3
"""Before a cluster counts as lost: a head that restarts has no nodes for a moment."""

_ENDED = object()
_log = logging.getLogger(__name__)


def heard(
    items: Iterator[Item], on_silence: Callable[[float], None], *, every_s: float = _LOOK_EVERY_S
) -> Iterator[Item]:
    """The items, asked for in a thread of their own.

    Args:
        on_silence: called with the seconds since the last item, as long as none comes; what it
            raises ends the waiting.
        every_s: between two calls.
    """
    answers: queue.SimpleQueue[Any] = queue.SimpleQueue()
    is_over = threading.Event()

    def ask() -> None:
        try:
            for item in items:
                answers.put(item)
                if is_over.is_set():
                    break
            answers.put(_ENDED)
        except BaseException as error:  # goes to whoever waits
            answers.put(error)

    threading.Thread(target=ask, name="shards", daemon=True).start()
    last_s = time.monotonic()
    try:
        while True:
            try:
                answer = answers.get(timeout=every_s)
            except queue.Empty:
                on_silence(time.monotonic() - last_s)
                continue
            if answer is _ENDED:
                return
            if isinstance(answer, BaseException):
                raise answer
            yield answer
            last_s = time.monotonic()
    finally:
        is_over.set()


class SilenceWatch:
    """Says what a silent run waits for, and ends it where nothing can come any more.

    Args:
        limit_s: silence that ends the run; None is any.
        stage: the stage that took most of the time until now, "" before any.
    """

    def __init__(self, limit_s: float | None, stage: Callable[[], str]) -> None:
        self._limit_s, self._stage = limit_s, stage
        self._said_s = 0.0
        self._looks = 0

    def __call__(self, silent_s: float) -> None:
        """Look at the cluster.

        Raises:
            RunError: no node is alive, or not the driver's, or the silence is too long.
        """
        nodes, own_lives = _living_nodes()
        self._looks = 0 if nodes and own_lives else self._looks + 1
        if self._looks >= _LOOKS_WITHOUT_NODES:
            lost = (
                "the cluster has given up the node that this driver runs on (it stood still for "
                "too long, or lost its network)"
                if nodes
                else "no node of the Ray cluster is alive any more"
            )
            raise RunError(f"{lost}: what is committed is kept, run it again to resume")
        if self._limit_s is not None and silent_s > self._limit_s:
            raise RunError(
                f"no shard was done for {silent_s / 60:.0f} minutes ({_actors(nodes)}): what is "
                "committed is kept, run it again to resume. Where a shard may take longer, set a "
                "higher max_silence_minutes, or smaller shards (shard.frames)"
            )
        if silent_s < self._said_s:  # shards came meanwhile
            self._said_s = 0.0
        if silent_s - self._said_s >= _SAID_EVERY_S:
            self._said_s = silent_s
            stage = self._stage()
            most = f"; most time went into {stage} until then" if stage else ""
            _log.warning("no shard for %.0f s: %s%s", silent_s, _actors(nodes), most)


def _living_nodes() -> tuple[int, bool]:
    """How many nodes are alive, and whether the driver's is."""
    import ray

    alive = {node["NodeID"] for node in ray.nodes() if node["Alive"]}
    return len(alive), ray.get_runtime_context().get_node_id() in alive


def _actors(nodes: int) -> str:
    """The state of the job's actors, in words."""
    import ray
    from ray._private.state import actors

    job = ray.get_runtime_context().get_job_id()
    states = Counter(
        one["State"]
        for one in actors().values()
        if one["JobID"] == job and "MapBatches" in one["ActorClassName"]
    )
    up, all_of_it = states["ALIVE"], sum(states.values()) - states["DEAD"]
    where = f"{nodes} {'node' if nodes == 1 else 'nodes'}"
    if not all_of_it:
        return f"no actor was asked for yet on {where}, records are being read"
    waiting = "" if up == all_of_it else ", the others are being started or wait for room"
    return f"{up} of {all_of_it} actors are up on {where}{waiting}"
