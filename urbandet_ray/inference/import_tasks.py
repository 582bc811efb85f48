"""Writes an import's groups in Ray's tasks, with a run's promises.

A group counts once the file that says so is written, after its records; so a task that Ray repeats,
or a command that is repeated, does no group twice and leaves none out.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import islice

from urbandet_ray.config import RayConfig
from urbandet_ray.datasets.record_files import RecordGroup, WrittenGroup, write_group
from urbandet_ray.errors import RunError, UrbandetError, first_line
from urbandet_ray.inference.session import ray_session
from urbandet_ray.labels import LabelMap
from urbandet_ray.storage import Storage

_TRIES = 3


def write_groups(
    groups: Sequence[RecordGroup], out: str, labels: LabelMap, storage: Storage, config: RayConfig
) -> Iterator[WrittenGroup]:
    """Write groups, one a core at a time; each is yielded when it is done, in no order.

    Args:
        groups: of which those that are done already are only read.
        out: the data folder, which every node sees.
        labels: the classes.
        storage: reads and writes.
        config: the Ray to use.

    Raises:
        RunError: no cluster answers, a group cannot be written, or its process ended on every try.
    """
    import ray

    with ray_session(config):
        task = ray.remote(num_cpus=1, max_retries=_TRIES)(_attempt)
        cores = max(int(ray.cluster_resources().get("CPU", 1)), 1)
        left = iter(groups)
        waiting = [task.remote(one, out, labels, storage) for one in islice(left, cores)]
        while waiting:
            done, waiting = ray.wait(waiting, num_returns=1)
            waiting += [task.remote(one, out, labels, storage) for one in islice(left, 1)]
            try:
                written = ray.get(done[0])
            except ray.exceptions.RayError as error:
                raise RunError(
                    f"a process that wrote records ended {_TRIES + 1} times "
                    f"({first_line(error)}): is there enough memory? Repeat the command, it resumes"
                ) from None
            if isinstance(written, str):
                raise RunError(f"{written}. Repeat the command, it resumes")
            yield written


def _attempt(
    group: RecordGroup, out: str, labels: LabelMap, storage: Storage
) -> WrittenGroup | str:
    """A group, or what a person is told: Ray would wrap an error into a traceback."""
    try:
        return write_group(group, out, labels, storage)
    except UrbandetError as error:
        return f"{group.part}/{group.name}: {error}"
