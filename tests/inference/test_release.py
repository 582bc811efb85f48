"""Nodes that a run has no work for any more are given back."""

from types import SimpleNamespace
from typing import Any

import pytest

from urbandet_ray.inference import release

READER, ACTOR = {"CPU": 0.1}, {"CPU": 1.0, "GPU": 1.0}


class Operator:
    """A step of a pipeline, as far as Ray Data's autoscaler asks for it."""

    def __init__(self, bundle: dict[str, float], actors: int | None = None) -> None:
        from ray.data._internal.execution.interfaces import ExecutionResources

        self.resources = ExecutionResources.from_resource_dict(bundle)
        self.actors, self.waiting = actors, 0.0
        self.output_dependencies: list[Any] = []
        self.metrics = SimpleNamespace(
            average_num_inputs_per_task=None,
            average_num_outputs_per_task=None,
            num_output_blocks_per_task_s=None,
        )

    def per_task_resource_allocation(self) -> Any:
        return self.resources

    def min_scheduling_resources(self) -> Any:
        return self.resources

    def get_max_concurrency_limit(self) -> None:
        return None

    def has_completed(self) -> bool:
        return False

    def get_autoscaling_actor_pools(self) -> list[Any]:
        if self.actors is None:
            return []
        pool = {"current_size": lambda: self.actors, "get_pool_util": lambda: self.waiting}
        return [SimpleNamespace(**pool)]


class Cluster:
    """How busy it is, what it is asked for, and the time."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 1000.0
        self.asked: list[dict[str, float]] = []
        monkeypatch.setattr(release, "time", SimpleNamespace(monotonic=lambda: self.now))

    def observe(self) -> None:
        """The gauge's."""

    def get(self) -> Any:
        from ray.data._internal.cluster_autoscaler.resource_utilization_gauge import ClusterUtil

        return ClusterUtil(gpu=0.9)

    def request_resources(self, resources: list[dict[str, float]], **_: Any) -> None:
        self.asked = resources


def test_what_is_idle_for_long_is_given_back(monkeypatch: pytest.MonkeyPatch) -> None:
    """A short lull changes nothing; after a long one nothing is asked for, though the actors that
    wait hold most GPUs."""
    cluster, reader, pool = Cluster(monkeypatch), Operator(READER), Operator(ACTOR, actors=4)
    autoscaler = release.releasing_autoscaler()(
        [reader, pool],
        execution_id="run",
        utility_calculator=cluster,
        autoscaling_coordinator=cluster,
        min_gap_between_autoscaling_requests_s=0,
    )
    autoscaler._last_resource_request = [READER, *[ACTOR] * 4]
    pool.actors = 1
    for _ in range(3):
        autoscaler.try_trigger_scaling()
        cluster.now += release.RELEASE_AFTER_S / 3
        assert cluster.asked == [READER, *[ACTOR] * 4]
    autoscaler.try_trigger_scaling()
    assert cluster.asked == []


def test_work_starts_the_wait_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    """A lull with two shards that meet, shards that wait for long, a lull: none was long enough."""
    cluster, pool = Cluster(monkeypatch), Operator(ACTOR, actors=1)
    autoscaler = release.releasing_autoscaler()(
        [pool], execution_id="run", utility_calculator=cluster, autoscaling_coordinator=cluster
    )
    autoscaler._last_resource_request = ["kept"]
    for waiting, seconds in ((0, 0), (3.0, 10), (1.0, 10), (3.0, 5), (3.0, 4), (1.0, 5), (1.0, 20)):
        pool.waiting = waiting
        cluster.now += seconds
        autoscaler._is_cluster_utilization_low(cluster.get())
    assert autoscaler._last_resource_request == ["kept"]
    cluster.now += 10
    autoscaler._is_cluster_utilization_low(cluster.get())
    assert autoscaler._last_resource_request == []


def test_ray_data_makes_the_releasing_one() -> None:
    """The name that Ray Data's executor calls is the one that is replaced."""
    from ray.data._internal.execution import streaming_executor

    release.release_idle_nodes()
    assert streaming_executor.create_cluster_autoscaler is release._create
