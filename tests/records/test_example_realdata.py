"""TF Examples that others wrote."""

from pathlib import Path

import numpy as np
import pytest

from urbandet_ray.records.example import frame_and_problems_from_example
from urbandet_ray.records.tfrecord import read_records


@pytest.mark.realdata
def test_waymo_validation_records(realdata: Path) -> None:
    """100 frames of 5 segments with 1,783 vehicles, 288 pedestrians and no cyclist."""
    counts = np.zeros(5, int)
    frames = []
    for path in sorted((realdata / "waymo" / "val").glob("*.tfrecord")):
        with path.open("rb") as stream:
            for record in read_records(stream):
                frame, problems = frame_and_problems_from_example(
                    record.raw, default_key=f"{path.stem}-{record.index:06d}", segment=path.stem
                )
                assert problems == ()
                assert frame.truth is not None
                counts += np.bincount(frame.truth.class_ids, minlength=5)
                frames.append(frame)
    assert counts.tolist() == [0, 1783, 288, 0, 0]
    assert len({frame.frame_key for frame in frames}) == 100
    assert {frame.size_wh for frame in frames} == {(640, 640)}
