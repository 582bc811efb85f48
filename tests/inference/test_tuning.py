"""Trials find what is fastest, on real actors with detectors whose speed is known."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial

import drives
import pytest
from drives import (
    BreakingDetector,
    SquareDetector,
    WaitingDetector,
    refuse_to_load,
    write_drive,
)

from urbandet_ray.config import InferConfig
from urbandet_ray.errors import ModelError, RunError
from urbandet_ray.inference.job import InferJob
from urbandet_ray.inference.tuning import CPU_BATCHES, GPU_BATCHES, Trial, Tuning, _layouts, tune
from urbandet_ray.labels import STREET_LABELS
from urbandet_ray.records.sources import Record, list_sources, read_source
from urbandet_ray.storage import Storage

pytestmark = pytest.mark.ray


@pytest.fixture(scope="module", autouse=True)
def detectors_travel() -> Iterator[None]:
    """Actors cannot import the modules of tests: the detectors go to them whole."""
    from ray import cloudpickle

    cloudpickle.register_pickle_by_value(drives)
    yield
    cloudpickle.unregister_pickle_by_value(drives)


def job_of(make: Callable[[], SquareDetector], threads: int) -> InferJob:
    return InferJob(InferConfig(input="a", output="unused"), Storage(), make, STREET_LABELS)


@pytest.fixture(scope="module")
def records(tmp_path_factory: pytest.TempPathFactory) -> list[Record]:
    """Forty good frames."""
    folder = tmp_path_factory.mktemp("tuned")
    write_drive(folder / "drive.tfrecord", 40)
    (source,) = list_sources(str(folder), Storage())
    return list(read_source(source, Storage()))


def test_the_fastest_setting_wins(ray_dashboard: str, records: list[Record]) -> None:
    """A slow candidate is tried once, one that does not load is told, larger batches are found."""
    told: list[Trial] = []
    found = tune(
        {
            "slow": partial(job_of, partial(WaitingDetector, image_s=0.1)),
            "fast": partial(job_of, WaitingDetector),
            "absent": partial(job_of, refuse_to_load),
        },
        records,
        on_trial=told.append,
    )
    assert tuple(told) == found.trials
    assert found.failed == {"absent": "this runtime is not installed"}
    assert [trial.model for trial in found.trials].count("slow") == 1
    fast = {(t.threads, t.actors, t.batch_size): t for t in found.trials if t.model == "fast"}
    assert set(fast) == {(t, 2 // t, size) for t in (1, 2) for size in CPU_BATCHES}
    best = found.fastest()
    assert (best.model, best.actors) == ("fast", 2)
    assert best.batch_size >= 4
    # 20 ms a call and 1 ms an image, whatever else a busy machine does to it
    assert fast[1, 2, 1].model_ms >= 21
    assert 3.5 <= best.model_ms < fast[1, 2, 1].model_ms


def test_one_batch_size_may_be_given(ray_dashboard: str, records: list[Record]) -> None:
    """Then only the number of threads is tried."""
    found = tune({"one": partial(job_of, WaitingDetector)}, records, batch_size=2)
    assert {trial.batch_size for trial in found.trials} == {2}
    assert [trial.threads for trial in found.trials] == [1, 2]


def test_gpu_actors_share_their_node(ray_dashboard: str, records: list[Record]) -> None:
    """Two GPUs in name, half of one each: four actors; batches as far as the frames reach."""
    found = tune({"one": partial(job_of, WaitingDetector)}, records, gpus=0.5)
    assert {(trial.threads, trial.actors, trial.gpus) for trial in found.trials} == {(1, 4, 0.5)}
    sizes = {trial.batch_size for trial in found.trials}
    assert sizes == {4, *(size for size in GPU_BATCHES if size <= 40)}


def test_gpus_that_no_node_has_are_refused(ray_dashboard: str, records: list[Record]) -> None:
    """At once, instead of waiting for a node that never comes."""
    with pytest.raises(RunError, match=r"wants 4 GPU and no node has them: set actors\.gpus=0"):
        tune({"one": partial(job_of, WaitingDetector)}, records, gpus=4)


def test_layouts_fill_the_node() -> None:
    """As many actors as its cores, or its GPUs, have room for."""
    assert _layouts({"cpus": 6.0}, 0) == [(1, 6, 0), (2, 3, 0), (4, 1, 0)]
    assert _layouts({"cpus": 32.0, "gpus": 8.0}, 0.5) == [(1, 16, 0.5)]


def test_actors_may_share_a_gpu() -> None:
    """As many as there are cores for the rest of their work; a share that was given stays."""
    shares = [(1, 1, 1), (1, 2, 0.5), (1, 4, 0.25), (1, 8, 0.125)]
    assert _layouts({"cpus": 16.0, "gpus": 1.0}, 1) == shares
    assert _layouts({"cpus": 16.0, "gpus": 1.0}, 1, (1, 2)) == shares[:2]
    assert _layouts({"cpus": 6.0, "gpus": 1.0}, 1) == shares[:3]
    assert _layouts({"cpus": 2.0, "gpus": 4.0}, 1) == [(1, 4, 1)]
    assert _layouts({"cpus": 16.0, "gpus": 1.0}, 0.25) == shares[2:3]


def test_layouts_are_those_of_the_run() -> None:
    """With fewer actors than cores, more threads; never fewer actors than it starts with."""
    eight = {"cpus": 8.0, "gpus": 2.0}
    assert _layouts(eight, 0, (2, None)) == [(1, 2, 0), (2, 2, 0), (4, 2, 0)]
    assert _layouts(eight, 0, (1, 4)) == [(1, 4, 0), (2, 4, 0), (4, 2, 0), (8, 1, 0)]
    assert _layouts(eight, 0, (16, None)) == [(1, 8, 0)]  # the rest waits for an autoscaler
    assert _layouts(eight, 0, threads=3) == [(3, 2, 0)]
    assert _layouts(eight, 0.5, (2, None)) == [(1, 2, 0.5)]


def test_a_candidate_that_breaks_is_left_out(ray_dashboard: str, records: list[Record]) -> None:
    """By an error that nobody translated, or before an actor is asked for."""

    def no_job(threads: int) -> InferJob:
        raise ModelError("does not tell its input's size")

    found = tune(
        {
            "broken": partial(job_of, BreakingDetector),
            "none": no_job,
            "fine": partial(job_of, SquareDetector),
        },
        records[:4],
        threads=1,
    )
    assert {trial.model for trial in found.trials} == {"fine"}
    assert "out of memory" in found.failed["broken"]
    assert found.failed["none"] == "does not tell its input's size"


def test_frames_that_nobody_can_decode_end_a_trial(
    ray_dashboard: str, records: list[Record]
) -> None:
    """Rather than being tried for ever."""
    frame = replace(records[0].frame, encoded=b"no image")
    found = tune({"one": partial(job_of, SquareDetector)}, [replace(records[0], frame=frame)])
    assert found.failed == {"one": "it got no frame that can be decoded"}


def test_nothing_that_runs_says_why() -> None:
    """The reason of each candidate is in the message."""
    with pytest.raises(RunError, match=r"no candidate runs on this machine \(a: not installed\)"):
        Tuning((), {"a": "not installed"}, {}).fastest()
