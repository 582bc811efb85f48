"""Runs over a part: every N-th frame, some classes. They are resumed, filmed and evaluated."""

from pathlib import Path
from typing import Any

import pytest
from drives import SquareDetector, make_frame
from manifests import inference_manifest
from small_videos import write_video

from urbandet_ray.commands.evaluate import evaluate
from urbandet_ray.commands.video import make_video
from urbandet_ray.config import EvalConfig, InferConfig, SampleConfig, VideoConfig
from urbandet_ray.frames import Frame, Truth
from urbandet_ray.inference.job import InferJob
from urbandet_ray.inference.processor import ShardProcessor
from urbandet_ray.inference.shards import CutRule, read_shards
from urbandet_ray.labels import STREET_LABELS
from urbandet_ray.records.sources import list_sources
from urbandet_ray.records.writer import write_frames
from urbandet_ray.runs.manifest import begin_run
from urbandet_ray.runs.run_folder import RunFolder
from urbandet_ray.storage import Storage


def infer_part(data: Path, uri: Path, every: int, **model: Any) -> RunFolder:
    """A finished run over every N-th frame, without Ray."""
    job = InferJob(
        InferConfig(input=str(data), output=str(uri)), Storage(), SquareDetector, STREET_LABELS
    )
    folder = job.folder()
    settings = {"draw": {"enabled": True}} | ({"sample": {"every": every}} if every > 1 else {})
    manifest = inference_manifest(
        input=str(data), settings=settings, model={"score_min": 0.01, **model}
    )
    begin_run(manifest, folder.uri, folder.storage)
    rule = CutRule(2, 1 << 20, sample=SampleConfig(every=every))
    for shard in read_shards(list_sources(str(data), job.storage)[0], 0, job.storage, rule, {}):
        ShardProcessor(job).process(shard)
    return folder


def labelled(index: int) -> Frame:
    """A frame with the square's vehicle, and a pedestrian that nobody finds."""
    frame = make_frame(index)
    assert frame.truth is not None
    boxes = [*frame.truth.boxes_xyxy.tolist(), [50.0, 20.0, 58.0, 40.0]]
    truth = Truth.of(boxes, [1, 2], ("vehicle", "pedestrian"))
    return Frame(frame.frame_key, "a", frame.encoded, "jpeg", frame.size_wh, truth)


@pytest.fixture
def drive(tmp_path: Path) -> Path:
    """Nine labelled frames."""
    write_frames((labelled(i) for i in range(9)), tmp_path / "a.tfrecord")
    return tmp_path / "a.tfrecord"


@pytest.mark.parametrize("every", [1, 2, 4])
def test_a_sampled_run_is_finished_and_evaluated(drive: Path, tmp_path: Path, every: int) -> None:
    """Its shards join, and what was left out on purpose is not called bad."""
    folder = infer_part(drive, tmp_path / "run", every)
    rows = [row.index for marker in folder.finished_markers() for row in folder.rows(marker)]
    assert rows == list(range(0, 9, every))
    report = evaluate(EvalConfig(run=folder.uri, truth=str(drive)))
    left_out = 9 - len(rows)
    told = [f"{left_out} frames are not in the figures: the run looked at a sample"]
    assert list(report.notes) == (told if left_out else [])
    assert report.metrics.frames == len(rows)


@pytest.mark.parametrize(
    ("classes", "names"),
    [
        (None, ["vehicle", "pedestrian"]),
        (["vehicle"], ["vehicle"]),
        (["vehicle", "cyclist"], ["vehicle"]),
    ],
)
def test_figures_are_of_the_classes_that_were_kept(
    drive: Path, tmp_path: Path, classes: list[str] | None, names: list[str]
) -> None:
    """The labels of the others count as nothing missed."""
    model = {} if classes is None else {"classes": classes}
    folder = infer_part(drive, tmp_path / "run", 1, **model)
    report = evaluate(EvalConfig(run=folder.uri, truth=str(drive)))
    known = report.metrics.by_class.items()
    assert [name for name, one in known if one.truth_boxes] == names
    said = f"only they are in the figures: {', '.join(classes or [])}"
    assert any(said in note for note in report.notes) == (classes is not None)


def test_a_sampled_video_keeps_its_pace(tmp_path: Path) -> None:
    """Fewer frames, the same time."""
    folder = infer_part(write_video(tmp_path / "a.mp4"), tmp_path / "run", 4)
    report = make_video(VideoConfig(run=folder.uri, output=str(tmp_path / "out.mp4")))
    assert (report.frames, report.seconds) == (10, pytest.approx(2.0))
