"""Synthetic streets: what is promised of frames, boxes and motion."""

import hashlib
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from urbandet_ray.boxes import iou_matrix
from urbandet_ray.labels import STREET_LABELS, LabelMap
from urbandet_ray.records.example import frame_from_example
from urbandet_ray.records.images import decode_image
from urbandet_ray.records.tfrecord import read_records
from urbandet_ray.streets import drive_frames, render_drive, write_drives
from urbandet_ray.streets.canvas import OVERSAMPLING
from urbandet_ray.streets.drive import (
    PLAIN_SHARE,
    SIDE_MIN_PX,
    VISIBLE_MIN,
    Shot,
    plan_drive,
    render_shot,
)

SMALL = (160, 120)


@pytest.fixture(scope="module")
def shots() -> list[Shot]:
    """One frame of each of ten drives, at the size that the package trains on."""
    return [render_shot(plan_drive(seed), 3 * seed) for seed in range(10)]


def test_same_seed_gives_the_same_bytes() -> None:
    """Two renderings of a drive are identical, images and boxes."""
    first, second = (list(drive_frames(4, 2, size_wh=SMALL)) for _ in range(2))
    assert [frame.encoded for frame in first] == [frame.encoded for frame in second]
    for a, b in zip(first, second, strict=True):
        assert a.truth is not None
        assert b.truth is not None
        np.testing.assert_array_equal(a.truth.boxes_xyxy, b.truth.boxes_xyxy)


def test_frames_do_not_depend_on_how_many_are_made_or_on_what_was_made_before() -> None:
    """Frame 5 alone is frame 5 of the whole drive, another drive rendered in between or not."""
    whole = [image for image, _ in render_drive(6, 6, size_wh=SMALL)]
    list(render_drive(7, 1, size_wh=SMALL))
    np.testing.assert_array_equal(render_shot(plan_drive(6, SMALL), 5).image, whole[5])


def test_numpy_global_random_state_is_left_alone() -> None:
    """Rendering neither reads nor moves np.random's global state."""
    np.random.seed(1)
    first = next(render_drive(2, 1, size_wh=SMALL))[0]
    after_render = np.random.random()
    np.random.seed(1)
    assert np.random.random() == after_render
    np.testing.assert_array_equal(next(render_drive(2, 1, size_wh=SMALL))[0], first)


def test_seeds_differ() -> None:
    """Five seeds give five clearly different pictures."""
    images = [next(render_drive(s, 1, size_wh=SMALL))[0].astype(float) for s in range(5)]
    gaps = [np.abs(a - b).mean() for k, a in enumerate(images) for b in images[:k]]
    assert min(gaps) > 8


@pytest.mark.parametrize("size_wh", [(640, 640), (480, 320), (333, 217), (320, 480)])
def test_any_size(size_wh: tuple[int, int]) -> None:
    """The image has the size asked for, also an odd one, and boxes stay inside."""
    image, truth = next(render_drive(3, 1, size_wh=size_wh))
    assert image.shape == (size_wh[1], size_wh[0], 3)
    assert image.dtype == np.uint8
    assert len(truth) > 0
    assert (truth.boxes_xyxy >= 0).all()
    assert (truth.boxes_xyxy <= np.array([*size_wh, *size_wh])).all()


def test_boxes_are_tight_around_the_visible_pixels(shots: list[Shot]) -> None:
    """Each box is the extent of the object's pixels in the whole id buffer."""
    for shot in shots:
        for item in shot.seen:
            rows, columns = np.nonzero(shot.ids == item.ident)
            tight = [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]
            np.testing.assert_allclose(item.box_xyxy * OVERSAMPLING, tight)


def test_boxes_are_not_smaller_than_the_limit(shots: list[Shot]) -> None:
    """The longer side has at least SIDE_MIN_PX."""
    sides = [max(i.box_xyxy[2:] - i.box_xyxy[:2]) for shot in shots for i in shot.seen]
    assert min(sides) >= SIDE_MIN_PX


def test_hidden_objects_are_not_labelled() -> None:
    """What others cover by more than three quarters has no box; it would have one alone."""
    dropped = 0
    for seed in range(3):
        shot = render_shot(plan_drive(seed), 0)
        labelled = {item.ident for item in shot.seen}
        for ident in np.setdiff1d(np.unique(shot.ids), [0, *labelled]):
            rows, columns = np.nonzero(shot.ids == ident)
            dropped += max(np.ptp(rows), np.ptp(columns)) + 1 >= 2 * SIDE_MIN_PX
    assert VISIBLE_MIN == 0.25
    assert dropped > 2


def test_what_is_plainly_seen_is_labelled() -> None:
    """A large vehicle cut off by the image's edge keeps its box: no large object goes without."""
    cut_off = 0
    for index in (0, 12, 24):
        shot = render_shot(plan_drive(12), index)
        labelled = {item.ident: item.box_xyxy for item in shot.seen}
        for ident in np.setdiff1d(np.unique(shot.ids), [0, *labelled]):
            assert (shot.ids == ident).mean() < PLAIN_SHARE
        cut_off += sum(box[2] == 640 or box[0] == 0 for box in labelled.values())
    assert cut_off > 0


def test_the_image_shows_what_the_ids_say() -> None:
    """Inside an object's pixels the picture differs from the street without traffic."""
    drive = plan_drive(5)
    full = render_shot(drive, 15)
    empty = render_shot(_without_traffic(drive), 15)
    gap = np.abs(full.image.astype(int) - empty.image.astype(int)).max(axis=2)
    gap = gap.repeat(OVERSAMPLING, axis=0).repeat(OVERSAMPLING, axis=1)
    assert len(full.seen) > 5
    for item in full.seen:
        assert (gap[full.ids == item.ident] > 12).mean() > 0.4
    assert not empty.seen


def test_sizes_and_counts_are_like_a_real_drive(shots: list[Shot]) -> None:
    """Per frame 8-16 vehicles, 2-6 people, some cyclists; most boxes small, few large."""
    ids = np.array([item.class_id for shot in shots for item in shot.seen])
    sides = np.array([i.box_xyxy[2:] - i.box_xyxy[:2] for shot in shots for i in shot.seen])
    areas = sides.prod(axis=1)
    frames = len(shots)
    assert 8 <= (ids == 1).sum() / frames <= 16
    assert 2 <= (ids == 2).sum() / frames <= 6
    assert 0.4 <= (ids == 4).sum() / frames <= 2
    assert 0.5 <= (areas < 32**2).mean() <= 0.8
    assert 0.02 <= (areas > 96**2).mean() <= 0.12


def test_wheels_stand_on_the_ground_and_near_things_are_larger(shots: list[Shot]) -> None:
    """Vehicles end below the horizon, and the lower they end the larger they are."""
    boxes = np.array([i.box_xyxy for shot in shots for i in shot.seen if i.class_id == 1])
    whole = boxes[(boxes[:, 0] > 0) & (boxes[:, 2] < 640)]
    assert (whole[:, 3] > 0.45 * 640).all()
    height = whole[:, 3] - whole[:, 1]
    assert np.corrcoef(whole[:, 3], height)[0, 1] > 0.6


def test_motion_is_smooth() -> None:
    """From frame to frame an object's box moves little for its size and keeps its size."""
    drive = plan_drive(8, (320, 320))
    before: dict[int, np.ndarray] = {}
    overlaps, drops = [], 0
    for index in range(10):
        now = {item.key: item.box_xyxy for item in render_shot(drive, index).seen}
        for key in now.keys() & before.keys():
            overlaps.append(iou_matrix(now[key][None], before[key][None])[0, 0])
        drops += len(before.keys() - now.keys())
        before = now
    assert len(overlaps) > 40
    assert np.median(overlaps) > 0.7
    assert np.mean(np.array(overlaps) > 0.3) > 0.9
    assert drops < len(overlaps) / 4


def test_ego_drives_forward_and_nobody_drives_through_it() -> None:
    """The camera moves ahead every frame; nobody's centre comes within 1 m of it."""
    for seed in range(12):
        drive = plan_drive(seed)
        ego, last = drive.traffic.ego, -np.inf
        for t in np.arange(0, 8, 0.4):
            z, x = ego.z(float(t)), ego.x(float(t))
            assert z > last
            last = z
            for actor in drive.traffic.actors(float(t)):
                ax, az = actor.path.at(float(t), z)
                assert np.hypot(ax - x, az - z) > 1.0, (seed, t, actor)


def test_frames_carry_key_segment_and_class_names() -> None:
    """A frame names its drive and index, and its JPEG decodes to the image's size."""
    frame = list(drive_frames(12, 2, size_wh=SMALL))[1]
    assert (frame.frame_key, frame.segment) == ("street-0012-000001", "street-0012")
    assert frame.truth is not None
    names = {STREET_LABELS.name_of(int(i)) for i in frame.truth.class_ids}
    assert set(frame.truth.class_texts) == names
    assert decode_image(frame.encoded).shape == (SMALL[1], SMALL[0], 3)


def test_written_drives_read_back(tmp_path: Path) -> None:
    """One TFRecord a drive and the label map, nothing half-written left, progress told."""
    told: list[Path] = []
    paths = write_drives(
        tmp_path / "new", seeds=[7, 9], frame_count=2, size_wh=SMALL, progress=told.append
    )
    assert [path.name for path in paths] == ["street-0007.tfrecord", "street-0009.tfrecord"]
    assert told == paths
    present = sorted(path.name for path in (tmp_path / "new").iterdir())
    assert present == ["label_map.pbtxt", "street-0007.tfrecord", "street-0009.tfrecord"]
    labels = LabelMap.parse((tmp_path / "new" / "label_map.pbtxt").read_text())
    assert labels == STREET_LABELS
    with paths[0].open("rb") as file:
        records = list(read_records(file))
    frames = [
        frame_from_example(record.raw or b"", default_key="?", segment="street-0007")
        for record in records
    ]
    made = list(drive_frames(7, 2, size_wh=SMALL))
    assert [frame.encoded for frame in frames] == [frame.encoded for frame in made]
    for read, frame in zip(frames, made, strict=True):
        assert read.truth is not None
        assert frame.truth is not None
        np.testing.assert_allclose(read.truth.boxes_xyxy, frame.truth.boxes_xyxy, atol=1e-3)


def test_worker_processes_write_the_same_files(tmp_path: Path) -> None:
    """Two processes give the same bytes as none."""
    digests = []
    for workers in (1, 2):
        folder = tmp_path / str(workers)
        paths = write_drives(folder, seeds=[1, 2], frame_count=1, size_wh=SMALL, workers=workers)
        digests.append([hashlib.sha256(path.read_bytes()).hexdigest() for path in paths])
    assert digests[0] == digests[1]


def _without_traffic(drive):  # type: ignore[no-untyped-def]
    """The same street with nobody in it."""

    class Nobody:
        ego = drive.traffic.ego

        def actors(self, t: float) -> list[object]:
            return []

    return replace(drive, traffic=Nobody())
