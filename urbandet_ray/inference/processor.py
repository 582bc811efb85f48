"""One shard through decode, model, drawing and writing, and its commit.

Beside a GPU, threads decode ahead of the model and draw behind it; the C libraries at work
(libjpeg-turbo, OpenCV, the model) release Python's lock. On CPUs the actors themselves are the
parallelism, and each does its work in turn: threads within them gain next to nothing there
(docs/explanation/performance.md). The whole shard is done by one actor, so its files and its
marker are written by whoever did the work, and a lost actor costs one shard.
"""

from __future__ import annotations

import json
import os
import resource
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from urbandet_ray.config.sizing import decode_threads, draw_threads
from urbandet_ray.detections import Detections
from urbandet_ray.errors import ModelError, RecordError
from urbandet_ray.frames import Frame, Image
from urbandet_ray.inference.job import DeadLetter, InferJob, ShardSummary
from urbandet_ray.inference.shards import Shard
from urbandet_ray.records.images import decode_frame, encode_jpeg, frame_size
from urbandet_ray.records.sources import Record
from urbandet_ray.rendering.annotate import Annotator
from urbandet_ray.runs.detections_table import DetectionRow, rows_to_parquet
from urbandet_ray.runs.run_folder import Marker, RunFolder
from urbandet_ray.storage import is_remote

T = TypeVar("T")
Decoded = tuple[Image, tuple[int, int], list[str]]
"""What was decoded, the width and height of the whole frame, what the strict decoder refused."""
Good = tuple[Record, Frame, Image, tuple[int, int]]
"""A record, its frame, what was decoded of it, and the width and height of the whole frame."""


class StageClock:
    """Seconds of work by stage, added up from several threads."""

    def __init__(self) -> None:
        self.busy_s: dict[str, float] = {}
        self._lock = threading.Lock()

    def stage(self, name: str) -> StageTimer:
        """Time a block as work of this stage."""
        return StageTimer(self, name)

    def add(self, name: str, seconds: float) -> None:
        """Count work of a stage."""
        with self._lock:
            self.busy_s[name] = self.busy_s.get(name, 0.0) + seconds


class StageTimer:
    """Adds the time of its block to a clock; a third of the cost of a generator's context."""

    __slots__ = ("_begin", "_clock", "_name")

    def __init__(self, clock: StageClock, name: str) -> None:
        self._clock = clock
        self._name = name

    def __enter__(self) -> None:
        self._begin = time.perf_counter()

    def __exit__(self, *_: object) -> None:
        self._clock.add(self._name, time.perf_counter() - self._begin)


class InlineExecutor(Executor):
    """Does the work at once, in the caller's thread."""

    def submit(self, fn: Callable[..., T], /, *args: Any, **kwargs: Any) -> Future[T]:
        """Call it; the future is done when this returns."""
        future: Future[T] = Future()
        try:
            future.set_result(fn(*args, **kwargs))
        except Exception as error:  # goes where a thread's would: to whoever asks for the result
            future.set_exception(error)
        return future


def _threads(count: int) -> Executor:
    return ThreadPoolExecutor(count) if count else InlineExecutor()


class ShardProcessor:
    """A loaded detector with its threads; several shards may be processed at a time."""

    def __init__(self, job: InferJob) -> None:
        import cv2

        cv2.setNumThreads(1)  # the pools below are the parallelism
        self._job = job
        self._folder: RunFolder = job.folder()
        self._detector = job.make_detector()
        self._batch_size = job.config.batch_size or self._detector.batch_size
        actors, remote = job.config.actors, is_remote(job.config.output)
        self._look_ahead = 2 * self._batch_size if decode_threads(actors) else 1
        self._annotator = Annotator(job.labels, draw_truth=job.config.draw.truth)
        self._model_turn = threading.Lock()
        self._decoders = _threads(decode_threads(actors))
        self._drawers = _threads(draw_threads(actors, remote=remote))

    def warm_up(self) -> None:
        """Pay for what the first frame and the first shard cost extra, lazy imports above all.

        Not the model: where one crashes, it has to be within a shard, whose tries are counted.
        """
        image = np.zeros((64, 64, 3), np.uint8)
        self._annotator.annotate(image, Detections.of([[8, 8, 56, 56]], [0.5], [1]))
        encode_jpeg(image, self._job.config.draw.jpeg_quality)
        rows_to_parquet([])

    def process(self, shard: Shard) -> ShardSummary:
        """Do the shard and commit it; one that is committed already is left as it is.

        Raises:
            ModelError, StorageError: what ends the run. Bad records do not: they are dead letters.
            RunError: another writer has the run folder.
        """
        started = time.time()
        self._look_at_claim(now=True)
        done = self._folder.committed(shard.name)
        if done is not None:  # by a try whose answer got lost
            return self._told(done, shard, started)
        clock = StageClock()
        clock.busy_s["read"] = shard.read_s
        bad: list[tuple[Record, RecordError]] = []
        doubts: list[str] = []
        rows: list[DetectionRow] = []
        drawing: deque[Future[int]] = deque()
        drawn: list[int] = []
        memory_mb = 0.0
        for batch in self._batches(shard, clock, bad, doubts):
            with self._model_turn, clock.stage("model"):
                answers = self._detect([image for _, _, image, _ in batch])
            for (record, frame, image, size_wh), found in zip(batch, answers, strict=True):
                detections = _at_full_size(found, image, size_wh)
                rows.append(_row(shard, record, frame, size_wh, detections))
                if self._job.config.draw.enabled:
                    work = (clock, shard.source, record.index, image, detections, frame)
                    drawing.append(self._drawers.submit(self._draw, *work))
            if len(rows) % 16 < len(batch):
                memory_mb = max(memory_mb, own_memory_mb())
            while len(drawing) > 2 * self._batch_size:
                drawn.append(drawing.popleft().result())
        memory_mb = max(memory_mb, own_memory_mb())
        drawn += [future.result() for future in drawing]
        with clock.stage("write"):
            letters = self._commit(shard, rows, bad, len(doubts), drawn)
        return ShardSummary(
            shard=shard.name,
            source=shard.source,
            source_order=shard.source_order,
            frames=len(rows),
            detections=sum(len(row.detections) for row in rows),
            dead_letters=tuple(letters),
            doubts=tuple(doubts),
            extent=shard.extent,
            busy_s=clock.busy_s,
            started=started,
            ended=time.time(),
            actor=os.getpid(),
            memory_mb=memory_mb,
        )

    def _detect(self, images: list[Image]) -> list[Detections]:
        answers = self._detector.detect(images)
        if len(answers) != len(images):
            raise ModelError(
                f"the model answered for {len(answers)} of {len(images)} images: "
                "its export cannot batch; set batch_size to 1"
            )
        return answers

    def _batches(
        self,
        shard: Shard,
        clock: StageClock,
        bad: list[tuple[Record, RecordError]],
        doubts: list[str],
    ) -> Iterator[list[Good]]:
        """Decoded batches in record order; threads decode two batches ahead."""
        ahead: deque[tuple[Record, Future[Decoded]]] = deque()
        waiting = iter(shard.records)
        batch: list[Good] = []

        def look_ahead() -> None:
            while len(ahead) < self._look_ahead:
                record = next(waiting, None)
                if record is None:
                    return
                if record.frame is None:
                    bad.append((record, record.error or RecordError("unreadable", "no frame")))
                else:
                    ahead.append((record, self._decoders.submit(self._decode, clock, record.frame)))

        look_ahead()
        while ahead:
            record, future = ahead.popleft()
            try:
                image, size_wh, said = future.result()
                if record.frame is not None:
                    doubts += [f"{record.frame.frame_key}: {one}" for one in said[:1]]
                    batch.append((record, record.frame, image, size_wh))
            except RecordError as error:
                bad.append((record, error))
            if len(batch) == self._batch_size:
                yield batch
                batch = []
            look_ahead()
        if batch:
            yield batch

    def _decode(self, clock: StageClock, frame: Frame) -> Decoded:
        """The frame's image, smaller where that is allowed, and the whole frame's size."""
        doubts: list[str] = []
        least_wh = self._job.least_wh
        reduced = least_wh is not None and frame.format != "raw"
        with clock.stage("decode"):
            if reduced:
                frame = replace(frame, encoded=bytes(frame.encoded))  # of a view, the only copy
            most = self._job.config.max_pixels
            image = decode_frame(frame, max_pixels=most, least_wh=least_wh, doubts=doubts)
            size_wh = frame_size(frame) if reduced else (image.shape[1], image.shape[0])
            image = image if image.flags.writeable else image.copy()  # it is drawn on
            return image, size_wh, doubts

    def _draw(
        self,
        clock: StageClock,
        source: str,
        index: int,
        image: Image,
        detections: Detections,
        frame: Frame,
    ) -> int:
        """Write the annotated frame; its bytes."""
        settings = self._job.config.draw
        with clock.stage("draw"):
            shown = detections.above(settings.score_min)
            drawn = self._annotator.annotate(image, shown, frame.truth)
        with clock.stage("encode"):
            encoded = encode_jpeg(drawn, settings.jpeg_quality)
        with clock.stage("write"):
            self._look_at_claim()
            uri = self._folder.frame_uri(source, index)
            self._job.storage.write_provisional(uri, encoded)  # the marker makes it count
        return len(encoded)

    def _commit(
        self,
        shard: Shard,
        rows: list[DetectionRow],
        bad: list[tuple[Record, RecordError]],
        doubts: int,
        drawn: list[int],
    ) -> list[DeadLetter]:
        """Write all but the frames, wait until the disk has everything, then write the marker.

        Args:
            drawn: bytes of the annotated frames, which are written; empty where none are drawn.
        """
        store, folder = self._job.storage, self._folder
        self._look_at_claim()
        bad.sort(key=lambda entry: entry[0].index)
        letters = [self._bury(shard, record, error) for record, error in bad]
        sizes = [*drawn, *(letter.size_bytes for letter in letters)]
        if letters:
            lines = "".join(json.dumps(asdict(letter)) + "\n" for letter in letters).encode()
            store.write_bytes(folder.path("dead_letter", f"{shard.name}.jsonl"), lines)
            sizes.append(len(lines))
        table = rows_to_parquet(rows)
        store.write_bytes(folder.detections_uri(shard.name), table)
        store.make_durable(folder.frame_uri(shard.source, row.index) for row in rows if drawn)
        marker = Marker(
            shard=shard.name,
            source=shard.source,
            source_order=shard.source_order,
            first_index=shard.first_index,
            next_index=shard.next_index,
            first_offset=shard.first_offset,
            next_offset=shard.next_offset,
            last=shard.last,
            frames=len(rows),
            detections=sum(len(row.detections) for row in rows),
            dead_letters=len(letters),
            doubts=doubts,
            files=len(sizes) + 1,
            size_bytes=sum(sizes) + len(table),
        )
        self._look_at_claim(now=True)
        folder.commit(marker)
        return letters

    def _look_at_claim(self, *, now: bool = False) -> None:
        if self._job.claim is not None:
            self._job.claim.check(now=now)

    def _told(self, done: Marker, shard: Shard, started: float) -> ShardSummary:
        """What is to be said of a shard that was committed before."""
        letters: list[DeadLetter] = []
        if done.dead_letters:
            place = self._folder.path("dead_letter", f"{done.shard}.jsonl")
            lines = self._job.storage.read_bytes(place).decode().splitlines()
            letters = [DeadLetter(**json.loads(line)) for line in lines]
        return ShardSummary(
            shard=done.shard,
            source=done.source,
            source_order=done.source_order,
            frames=done.frames,
            detections=done.detections,
            dead_letters=tuple(letters),
            doubts=(f"{done.shard}: see the log of the try before",) * done.doubts,
            extent=shard.extent,
            started=started,
            ended=time.time(),
            actor=os.getpid(),
        )

    def _bury(self, shard: Shard, record: Record, error: RecordError) -> DeadLetter:
        raw = bytes(record.frame.encoded if record.frame is not None else record.raw)
        name = f"{shard.source}-{record.index:08d}.bin"
        self._job.storage.write_bytes(self._folder.path("dead_letter", name), raw)
        return DeadLetter(
            file=record.uri,
            index=record.index,
            offset=record.offset,
            reason=error.reason,
            detail=error.detail,
            size_bytes=len(raw),
            raw=name,
        )


def _at_full_size(found: Detections, image: Image, size_wh: tuple[int, int]) -> Detections:
    """Detections in pixels of the whole frame; the image may be a smaller one of it."""
    seen_wh = (image.shape[1], image.shape[0])
    if seen_wh == size_wh:
        return found
    boxes = found.boxes_xyxy * np.tile(np.divide(size_wh, seen_wh), 2)
    return replace(found, boxes_xyxy=boxes.astype(np.float32))


def own_memory_mb() -> float:
    """Resident memory of this process without what it maps of Ray's shared object store.

    Peak resident memory where the system does not tell the two apart.
    """
    try:
        status = Path("/proc/self/status").read_text()
    except OSError:
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    fields = dict(line.split(":", 1) for line in status.splitlines() if line.startswith("Rss"))
    return sum(int(fields[name].split()[0]) for name in ("RssAnon", "RssFile")) / 1024


def _row(
    shard: Shard,
    record: Record,
    frame: Frame,
    size_wh: tuple[int, int],
    detections: Detections,
) -> DetectionRow:
    return DetectionRow(
        shard=shard.name,
        index=record.index,
        frame_key=frame.frame_key,
        segment=frame.segment,
        size_wh=size_wh,
        detections=detections,
        time_s=None if frame.timestamp_us is None else frame.timestamp_us / 1e6,
    )
