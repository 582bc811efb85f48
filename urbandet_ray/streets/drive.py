"""Drives: the street, its traffic and the camera of one seed, frame by frame, with exact boxes."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from urbandet_ray.frames import Frame, Image, Truth
from urbandet_ray.labels import STREET_LABELS
from urbandet_ray.records.example import example_from_frame
from urbandet_ray.records.images import encode_jpeg
from urbandet_ray.records.tfrecord import RecordWriter
from urbandet_ray.streets.actors import actor_size, draw_actor, footprint
from urbandet_ray.streets.backdrop import draw_ground, draw_sky
from urbandet_ray.streets.camera import NEAR_M, Camera
from urbandet_ray.streets.canvas import OVERSAMPLING, Canvas
from urbandet_ray.streets.develop import Film, develop, draw_film
from urbandet_ray.streets.layout import Block, Layout, draw_layout
from urbandet_ray.streets.moods import Mood, draw_mood
from urbandet_ray.streets.scenery import draw_piece
from urbandet_ray.streets.shadows import cast_shadows
from urbandet_ray.streets.stage import Stage
from urbandet_ray.streets.traffic import Actor, EgoMotion, Traffic

VISIBLE_MIN = 0.25
"""Objects of which less is seen are not labelled."""

SIDE_MIN_PX = 8.0
"""Boxes whose longer side is shorter are not labelled."""

SLIVER_PX, AREA_MIN_PX = 2.0, 12.0
"""Nor are those with a shorter short side, as at the image's edge, or fewer visible pixels."""

PLAIN_SHARE = 0.006
"""What takes this part of the image is labelled however much of it is cut off or covered."""

_SIGHT_M = 260.0


@dataclass(frozen=True)
class Drive:
    """Everything that a seed decides, for frames of one size."""

    seed: int
    size_wh: tuple[int, int]
    layout: Layout
    mood: Mood
    traffic: Traffic
    film: Film
    eye_m: float
    field: float
    bend: float

    def camera(self, t: float) -> Camera:
        """The camera at time t seconds."""
        ego = self.traffic.ego
        width, height = (side * OVERSAMPLING for side in self.size_wh)
        focal = self.field * max(width, height)
        return Camera(
            (width, height), focal, height * 0.485 + ego.pitch(t) * focal,
            ego.x(t), self.eye_m, ego.z(t), ego.yaw(t), self.bend,
        )  # fmt: skip


@dataclass(frozen=True, eq=False)
class Seen:
    """One labelled object of a rendered frame.

    Attributes:
        key: the actor's, the same through the drive.
        ident: its number in the frame's id buffer.
        class_id: id of STREET_LABELS.
        box_xyxy: [4] visible extent, frame pixels.
    """

    key: int
    ident: int
    class_id: int
    box_xyxy: NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class Shot:
    """A rendered frame: the image, the id buffer at canvas size, and what is labelled."""

    image: Image
    ids: NDArray[np.uint16]
    seen: tuple[Seen, ...]


def plan_drive(seed: int, size_wh: tuple[int, int] = (640, 640)) -> Drive:
    """Decide everything about the drive of a seed; nothing is painted."""
    rng = np.random.default_rng([seed, 1])
    layout, mood = draw_layout(seed), draw_mood(rng)
    lane = (int(rng.integers(layout.lanes)) + 0.5) * layout.lane_m
    speed = float(rng.choice([rng.uniform(2, 5), rng.uniform(6, 11)], p=[0.25, 0.75]))
    ego = EgoMotion(speed, float(rng.uniform(0, 1.2)), lane, float(rng.uniform(0.05, 0.25)),
                    float(rng.uniform(0, 6)))  # fmt: skip
    bend = float(rng.choice([0.0, rng.uniform(-4e-4, 4e-4)], p=[0.4, 0.6]))
    return Drive(
        seed, size_wh, layout, mood, Traffic(seed, layout, ego), draw_film(rng),
        float(rng.uniform(1.65, 2.1)), float(rng.uniform(0.95, 1.2)), bend,
    )  # fmt: skip


def render_shot(drive: Drive, index: int, fps: float = 10.0) -> Shot:
    """Paint frame `index` of a drive."""
    t = index / fps
    camera, canvas = drive.camera(t), Canvas.blank(drive.size_wh)
    stage = Stage(canvas, camera, drive.mood)
    blocks = list(drive.layout.blocks(camera.z - 5, camera.z + _SIGHT_M))
    placed = [(a, a.path.at(t, camera.z)) for a in drive.traffic.actors(t)]
    draw_sky(canvas, camera, drive.mood, drive.seed)
    shadows = cast_shadows(camera, drive.mood, blocks, placed)
    draw_ground(canvas, camera, drive.mood, drive.layout, blocks, shadows)
    drawn = _draw_all(stage, drive.layout, blocks, placed, t)
    image = develop(canvas.image, stage.glows, drive.film, drive.mood, (drive.seed, index))
    seen = [_label(canvas.ids, ident, entry) for ident, entry in drawn.items()]
    return Shot(image, canvas.ids, tuple(item for item in seen if item is not None))


def _draw_all(
    stage: Stage, layout: Layout, blocks: list[Block],
    placed: list[tuple[Actor, tuple[float, float]]], t: float,
) -> dict[int, _Drawn]:  # fmt: skip
    """Draw scenery and actors far to near; what was drawn of each actor by its id."""
    camera = stage.camera
    pieces = [
        piece
        for block in blocks
        for piece in block.pieces
        if camera.z + 1 < piece.z1 and piece.z0 < camera.z + _SIGHT_M
    ]
    solid = ("building", "hedge")
    todo: list[tuple[float, int]] = [
        (piece.z1 if piece.kind in solid else piece.z0, -1 - k) for k, piece in enumerate(pieces)
    ]
    todo += [(at_xz[1], ident) for ident, (_, at_xz) in enumerate(placed, start=1)]
    drawn: dict[int, _Drawn] = {}
    for _, number in sorted(todo, reverse=True):
        if number < 0:
            draw_piece(stage, layout, pieces[-1 - number])
            continue
        actor, at_xz = placed[number - 1]
        outline = _outline(actor, at_xz, camera)
        if outline is None:
            continue
        area, share = outline
        draw_actor(stage, actor, at_xz, t, number)
        pixels = int(np.count_nonzero(stage.canvas.ids[area] == number))
        drawn[number] = _Drawn(actor, area, pixels, share)
    return drawn


@dataclass(frozen=True)
class _Drawn:
    actor: Actor
    area: tuple[slice, slice]
    pixels: int
    share: float


def _outline(
    actor: Actor, at_xz: tuple[float, float], camera: Camera
) -> tuple[tuple[slice, slice], float] | None:
    """Part of the canvas an actor can touch, and how much of it is in view; None if nothing."""
    height = actor_size(actor)[1]
    spare = 0.1 if actor.class_id == 1 else 0.45
    boxes = []
    for grow in (0.0, spare):
        base = footprint(actor, at_xz, grow)
        corners = np.concatenate([base, base + np.array([0, height + grow, 0])])
        seen = camera.to_camera(corners)
        if seen[:, 2].max() < 1.2:
            return None
        seen[:, 2] = np.maximum(seen[:, 2], NEAR_M)
        pixels = camera.to_pixels(seen)
        boxes.append(np.concatenate([pixels.min(axis=0), pixels.max(axis=0)]))
    limit = np.array([*camera.size_wh, *camera.size_wh])
    tight, loose = boxes[0], boxes[1]
    inside = np.clip(tight, 0, limit)
    full = float(np.prod(tight[2:] - tight[:2]))
    share = float(np.prod(inside[2:] - inside[:2])) / max(full, 1e-6)
    x0, y0, x1, y1 = np.clip(loose + np.array([-6, -6, 6, 6]), 0, limit).astype(int)
    if x1 <= x0 or y1 <= y0:
        return None
    return (slice(y0, y1), slice(x0, x1)), share


def _label(ids: NDArray[np.uint16], ident: int, drawn: _Drawn) -> Seen | None:
    """The box of what is left of an object in the id buffer; None where that is too little."""
    mask = ids[drawn.area] == ident
    visible = int(np.count_nonzero(mask))
    if visible < AREA_MIN_PX * OVERSAMPLING**2:
        return None
    plain = visible >= PLAIN_SHARE * ids.size
    if not plain and visible / drawn.pixels * drawn.share < VISIBLE_MIN:
        return None
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    top, left = drawn.area[0].start, drawn.area[1].start
    box = np.array(
        [left + columns[0], top + rows[0], left + columns[-1] + 1, top + rows[-1] + 1], np.float32
    ) / np.float32(OVERSAMPLING)
    sides = box[2:] - box[:2]
    if sides.max() < SIDE_MIN_PX or sides.min() < SLIVER_PX:
        return None
    return Seen(drawn.actor.key, ident, drawn.actor.class_id, box)


def render_drive(
    seed: int, frame_count: int, *, size_wh: tuple[int, int] = (640, 640), fps: float = 10.0
) -> Iterator[tuple[Image, Truth]]:
    """Render a drive: RGB images with the visible extent of every road user.

    Args:
        seed: decides street, light, camera and traffic; the same seed gives the same bytes.
        frame_count: how many frames; it does not change the frames themselves.
        size_wh: pixels, any size.
        fps: frames a second of the street's time.

    Yields:
        [h, w, 3] uint8 RGB, and boxes of what the image shows (ids of STREET_LABELS).
    """
    drive = plan_drive(seed, size_wh)
    for index in range(frame_count):
        shot = render_shot(drive, index, fps)
        ids = [item.class_id for item in shot.seen]
        boxes = [item.box_xyxy for item in shot.seen]
        yield shot.image, Truth.of(boxes, ids, tuple(STREET_LABELS.name_of(i) for i in ids))


def drive_frames(
    seed: int, frame_count: int, *, size_wh: tuple[int, int] = (640, 640), jpeg_quality: int = 92
) -> Iterator[Frame]:
    """Render a drive as JPEG frames named street-SEED-INDEX of segment street-SEED."""
    segment = f"street-{seed:04d}"
    for index, (image, truth) in enumerate(render_drive(seed, frame_count, size_wh=size_wh)):
        encoded = encode_jpeg(image, jpeg_quality)
        yield Frame(f"{segment}-{index:06d}", segment, encoded, "jpeg", size_wh, truth)


def write_drives(
    folder: Path, *, seeds: Sequence[int], frame_count: int, size_wh: tuple[int, int] = (640, 640),
    workers: int = 1, progress: Callable[[Path], None] | None = None,
) -> list[Path]:  # fmt: skip
    """Write a TFRecord per drive (street-0007.tfrecord) and label_map.pbtxt.

    Args:
        folder: made where missing; a file appears there only once it is complete.
        seeds: one drive each.
        frame_count: frames of each drive.
        size_wh: pixels.
        workers: processes; 1 renders in this one.
        progress: called with each finished file, in order.

    Returns:
        The files, in the order of `seeds`.
    """
    folder.mkdir(parents=True, exist_ok=True)
    _replace(folder / "label_map.pbtxt", STREET_LABELS.to_pbtxt().encode())
    jobs = [(folder, seed, frame_count, size_wh) for seed in seeds]
    written = []
    for path in map(_write_drive, jobs) if workers <= 1 else _in_processes(jobs, workers):
        written.append(path)
        if progress is not None:
            progress(path)
    return written


_Job = tuple[Path, int, int, tuple[int, int]]


def _in_processes(jobs: list[_Job], workers: int) -> Iterator[Path]:
    from concurrent.futures import ProcessPoolExecutor
    from multiprocessing import get_context

    with ProcessPoolExecutor(workers, get_context("spawn"), _use_one_thread) as pool:
        yield from pool.map(_write_drive, jobs)


def _use_one_thread() -> None:
    import cv2

    cv2.setNumThreads(1)


def _write_drive(job: _Job) -> Path:
    folder, seed, frame_count, size_wh = job
    path = folder / f"street-{seed:04d}.tfrecord"
    partial = path.with_suffix(".partial")
    with partial.open("wb") as file, RecordWriter(file) as writer:
        for frame in drive_frames(seed, frame_count, size_wh=size_wh):
            writer.write(example_from_frame(frame))
    partial.replace(path)
    return path


def _replace(path: Path, data: bytes) -> None:
    partial = path.with_name(path.name + ".partial")
    partial.write_bytes(data)
    partial.replace(path)
