"""The video of a run, drawn anew with its tracks."""

from pathlib import Path

import av
import numpy as np
import pytest
from drives import SquareDetector
from manifests import inference_manifest
from numpy.typing import NDArray
from small_videos import damage_packet, write_video, zeroed

from urbandet_ray.commands.track import track
from urbandet_ray.commands.video import make_video
from urbandet_ray.config import InferConfig, TrackConfig, VideoConfig
from urbandet_ray.errors import ConfigError, NotFoundError
from urbandet_ray.frames import Frame, Image
from urbandet_ray.inference.job import InferJob
from urbandet_ray.inference.processor import ShardProcessor
from urbandet_ray.inference.shards import CutRule, read_shards
from urbandet_ray.labels import STREET_LABELS
from urbandet_ray.records.images import encode_jpeg
from urbandet_ray.records.sources import list_sources
from urbandet_ray.records.writer import write_frames
from urbandet_ray.rendering.video_writer import VideoWriter
from urbandet_ray.runs.manifest import begin_run
from urbandet_ray.runs.run_folder import TRACKS_NAME, RunFolder
from urbandet_ray.storage import Storage

FRAMES = 10


def picture(index: int) -> Image:
    """A grey image in which a bright square of 40 px moves right by 16 px a frame."""
    image = np.full((240, 320, 3), 60, np.uint8)
    image[100:140, 20 + 16 * index : 60 + 16 * index] = 250
    return image


def write_pictures(path: Path) -> Path:
    """The drive of all pictures as a TFRecord."""
    frames = (
        Frame(f"{path.stem}-{i:06d}", path.stem, encode_jpeg(picture(i), 95), "jpeg", (320, 240))
        for i in range(FRAMES)
    )
    write_frames(frames, path)
    return path


def infer_squares(data: Path, uri: Path) -> RunFolder:
    """A finished run of the square detector, without Ray."""
    config = InferConfig(input=str(data), output=str(uri))
    job = InferJob(config, Storage(), SquareDetector, STREET_LABELS)
    sources, folder = list_sources(str(data), job.storage), job.folder()
    manifest = inference_manifest(input=str(data), sources=len(sources))
    begin_run(manifest, folder.uri, folder.storage)
    processor = ShardProcessor(job)
    for order, source in enumerate(sources):
        for shard in read_shards(source, order, job.storage, CutRule(4, 1 << 20), {}):
            processor.process(shard)
    return folder


@pytest.fixture
def run(tmp_path: Path) -> RunFolder:
    """A drive of ten frames in which one square moves, tracked."""
    folder = infer_squares(write_pictures(tmp_path / "a.tfrecord"), tmp_path / "run")
    track(folder.uri, TrackConfig(), folder.storage)
    return folder


def shown(run: RunFolder, **settings: object) -> list[NDArray[np.int16]]:
    """The pictures of a run's video."""
    path = Path(run.uri).parent / "shown.mp4"
    config = {"run": run.uri, "output": str(path), **settings}
    report = make_video(VideoConfig(**config))
    with av.open(str(path)) as video:
        images = [
            frame.to_ndarray(format="rgb24").astype(np.int16) for frame in video.decode(video=0)
        ]
    assert len(images) == report.frames
    return images


def test_tracks_show_in_every_frame(run: RunFolder) -> None:
    """As many pictures as without; numbers in the labels, and a trail where the square has been."""
    plain, tracked = shown(run), shown(run, tracks=True)
    assert len(plain) == len(tracked) == FRAMES
    changes = [np.abs(a - b) for a, b in zip(tracked, plain, strict=True)]
    number = [change[80:98].max() for change in changes]  # above the box
    assert min(number) > 60
    trail = [change[138:142, : 10 + 16 * i].max() for i, change in enumerate(changes)]
    assert trail[0] < 30  # nothing has moved yet
    assert min(trail[3:]) > 60


def test_trails_follow_what_is_shown(run: RunFolder) -> None:
    """Without boxes there are no trails either."""
    tracked, plain = (shown(run, tracks=on, score_min=0.95) for on in (True, False))
    assert max(np.abs(a - b).max() for a, b in zip(tracked, plain, strict=True)) == 0


def test_two_runs_have_trails_of_their_own(run: RunFolder) -> None:
    """Side by side, each as it is alone."""
    both = shown(run, tracks=True, compare=run.uri)
    assert len(both) == FRAMES
    assert both[0].shape[1] > shown(run)[0].shape[1]


def test_a_run_without_tracks_is_refused(run: RunFolder) -> None:
    """The message says what to run."""
    run.storage.delete(run.path(TRACKS_NAME))
    with pytest.raises(NotFoundError, match=rf"no track ids .*run `urbandet track {run.uri}` f"):
        shown(run, tracks=True)


def test_a_second_run_without_tracks_is_refused(run: RunFolder, tmp_path: Path) -> None:
    """It is the other one that is named."""
    other = infer_squares(tmp_path / "a.tfrecord", tmp_path / "other")
    with pytest.raises(NotFoundError, match=rf"urbandet track {other.uri}`"):
        shown(run, tracks=True, compare=other.uri)


def test_annotated_frames_have_no_tracks(run: RunFolder) -> None:
    """They were drawn before there were any."""
    with pytest.raises(ConfigError, match="leave out source=frames"):
        shown(run, tracks=True, source="frames")


def test_frames_of_a_video_can_be_drawn_on(tmp_path: Path) -> None:
    """Its pictures come as views of the decoder's bytes."""
    with VideoWriter(tmp_path / "drive.mp4", fps=10) as video:
        for index in range(FRAMES):
            video.write(picture(index))
    folder = infer_squares(tmp_path / "drive.mp4", tmp_path / "run")
    track(folder.uri, TrackConfig(), folder.storage)
    assert len(shown(folder, tracks=True)) == FRAMES


PACES_MS = {
    "even": [40 * i for i in range(25)],
    "dim": [33 * i for i in range(10)] + [400 + 90 * i for i in range(10)],
    "held": [0, 50, 100, 1900, 1950, 2000],
}


@pytest.mark.parametrize("name", PACES_MS)
@pytest.mark.parametrize("suffix", ["mp4", "webm"])
def test_a_video_plays_at_its_source_s_pace(tmp_path: Path, name: str, suffix: str) -> None:
    """Frames stand where they stood, and the whole is as long."""
    times_ms = PACES_MS[name]
    source = write_video(tmp_path / "drive.mp4", times_ms=times_ms)
    folder = infer_squares(source, tmp_path / "run")
    path = tmp_path / f"out.{suffix}"
    report = make_video(VideoConfig(run=folder.uri, output=str(path)))
    assert report.to_text().endswith("at the source's pace")
    assert stamps(path) == pytest.approx([time / 1000 for time in times_ms], abs=0.002)
    step = np.median(np.diff(times_ms)) / 1000
    assert report.seconds == pytest.approx(times_ms[-1] / 1000 + step, abs=0.002)


def stamps(path: Path) -> list[float | None]:
    """The times of a video's frames."""
    with av.open(str(path)) as video:
        return [frame.time for frame in video.decode(video=0)]


def test_a_rate_that_is_asked_for_decides(tmp_path: Path) -> None:
    """Whatever the frames' own times are."""
    source = write_video(tmp_path / "drive.mp4", times_ms=PACES_MS["held"])
    folder = infer_squares(source, tmp_path / "run")
    report = make_video(VideoConfig(run=folder.uri, output=str(tmp_path / "a.mp4"), fps=20))
    assert report.to_text().endswith("a.mp4: 6 frames, 0.3 s, 20 frames a second")
    assert stamps(tmp_path / "a.mp4") == pytest.approx([i / 20 for i in range(6)])


@pytest.mark.parametrize("packet", [0, 13, 20])
def test_a_damaged_video_keeps_its_length(tmp_path: Path, packet: int) -> None:
    """The last sound frame stands where frames were lost."""
    hurt = damage_packet(write_video(tmp_path / "a.mp4"), packet, zeroed)
    folder = infer_squares(hurt, tmp_path / "run")
    report = make_video(VideoConfig(run=folder.uri, output=str(tmp_path / "out.mp4")))
    assert report.frames < 40
    assert report.seconds == pytest.approx(40 / 20, abs=0.001)


def test_frames_without_times_say_so(run: RunFolder, tmp_path: Path) -> None:
    """They stand for a tenth of a second each."""
    report = make_video(VideoConfig(run=run.uri, output=str(tmp_path / "a.mp4")))
    assert report.to_text().endswith(
        "10 frames, 1.0 s, 10 frames a second, as nobody says their times (--fps sets another)"
    )
