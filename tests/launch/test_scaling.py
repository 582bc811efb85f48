"""`urbandet scale`: what the autoscaler says of our request, and of a job that asks for us."""

from dataclasses import replace
from typing import Any

import pytest
from conftest import REPOSITORY

from urbandet_ray.commands.scale import scale_there
from urbandet_ray.errors import RunError
from urbandet_ray.launch import scaling
from urbandet_ray.launch.jobs import JobState
from urbandet_ray.launch.scaling import Standing, wait_for_workers

EMPTY = Standing((), (), (), (), (), 0, 0)


def stand(monkeypatch: pytest.MonkeyPatch, *moments: Standing) -> None:
    """The cluster stands so, one look after the other."""
    turns = list(moments)
    monkeypatch.setattr(scaling, "standing", lambda: turns.pop(0) if turns[1:] else turns[0])
    monkeypatch.setattr(scaling, "_LOOK_EVERY_S", 0.0)
    monkeypatch.setattr(scaling, "_SETTLE_S", -1.0)


def test_what_others_cannot_have_does_not_end_the_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    """A job with an actor that fits nowhere is somebody else's trouble."""
    other = replace(EMPTY, infeasible=("1 x 8 GPU",))
    stand(monkeypatch, other, other, replace(other, gpu_nodes=2))
    said: list[str] = []
    assert wait_for_workers(2, 0, said.append, timeout_s=30).gpu_nodes == 2
    assert "infeasible: 1 x 8 GPU" in said[0]


def test_a_request_that_cannot_be_met_stands(monkeypatch: pytest.MonkeyPatch) -> None:
    """The wait ends; what was asked for is not taken back by that."""
    stand(monkeypatch, replace(EMPTY, infeasible=("4 x 1 GPU",), unmade=("4 x 1 GPU",)))
    with pytest.raises(RunError, match=r"can never make 4 x 1 GPU: .* The request stands: ask"):
        wait_for_workers(4, 0, lambda _: None, timeout_s=30)


def test_lower_bounds_are_told_from_other_requests() -> None:
    """In the autoscaler's own words."""
    from ray.core.generated.autoscaler_pb2 import AutoscalingState

    state = AutoscalingState()
    state.infeasible_resource_requests.add().resources_bundle["GPU"] = 8
    one = state.infeasible_cluster_resource_constraints.add().resource_requests.add()
    one.request.resources_bundle["CPU"] = 64
    one.count = 2
    assert scaling._refused(state) == ["8 GPU"]
    assert scaling._refused_bounds(state) == ["64 CPU", "64 CPU"]


def test_a_job_that_never_began_says_why() -> None:
    """There is no log to say it."""

    class Failing:
        address = "http://head:8265"

        def submit(self, *_: Any, **__: Any) -> str:
            return "scale-1"

        def follow(self, job_id: str, write: Any) -> JobState:
            return JobState(job_id, "FAILED", None, "runtime_env setup failed", "python -m x")

    written: list[str] = []
    code = scale_there(Failing(), 2, None, write=written.append, working_dir=REPOSITORY)  # type: ignore[arg-type]
    assert code == 1
    assert "scale-1: failed; runtime_env setup failed\n" in "".join(written)
