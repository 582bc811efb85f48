"""The configs of an inference, and of what is made of it: every key, its meaning, its default."""

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from urbandet_ray.config.sections import (
    Count,
    OpenShare,
    Positive,
    RayConfig,
    Section,
    Share,
    StorageConfig,
)
from urbandet_ray.uris import absolute_uri


class NmsConfig(Section):
    """How an SSD's network (urbandet export) suppresses boxes; None is as in its pipeline.config.
    Other models do it inside, by their own rules."""

    iou_max: OpenShare | None = None
    """A box that overlaps a better one of its class by more is dropped."""
    soft_sigma: Annotated[float, Field(ge=0)] | None = None
    """Above 0, overlap lowers scores instead (Soft-NMS); 0.5 is usual."""
    class_agnostic: bool | None = None
    """A box of any class suppresses another."""


class ModelConfig(Section):
    """Which detector, and how its answers are read."""

    uri: str = "shipped"
    """`shipped`, a network of `urbandet export`, a .tflite file with its NMS op, the OD API's
    SavedModel folder, or with `backend: auto` a training run's folder."""
    labels: str | None = None
    """The model's own classes (label_map.pbtxt or a name a line); None looks beside the model."""
    mapping: str | None = None
    """Turns the model's classes into ours: `coco-to-street` or a YAML; None matches names."""
    score_min: Share = 0.01
    """Detections below this score are dropped; a higher one makes mAP a lower bound."""
    max_detections: Positive = 100
    """At most this many detections a frame, best first."""
    classes: Annotated[tuple[str, ...], Field(min_length=1)] | None = None
    """Only these of our classes are kept, by name; None keeps all."""
    threads: Positive = 1
    """CPU threads of the model in each actor; a CPU actor holds as many cores."""
    mean: float | None = None
    """Mean subtracted from pixels of a float TFLite input; None takes the model's metadata."""
    std: Annotated[float, Field(gt=0)] | None = None
    """Divisor after the mean; None takes the model's metadata."""
    nms: NmsConfig = NmsConfig()
    compiler: Literal["xla", "tensorrt"] | None = None
    """Compile a network for its GPU: xla a `savedmodel` one (on CPUs it is many times slower),
    tensorrt an `onnx` one (minutes at the first start)."""


class TilesConfig(Section):
    """Parts of each image that the model also sees, enlarged, for small objects. 1 x 1 is off."""

    rows: Positive = 1
    """Tiles from top to bottom."""
    columns: Positive = 1
    """Tiles from left to right."""
    overlap: Annotated[float, Field(ge=0, lt=0.9)] = 0.2
    """Share of a tile's side that neighbours share: what fits into the strip is whole in one. An
    object larger than it may be cut in every tile, and is then whole in the whole image only."""
    whole: bool = True
    """The model sees the whole image too. Without it, objects larger than a tile are found in
    pieces."""
    merge: Literal["nms", "fusion"] = "nms"
    """nms keeps the best box of an object, fusion averages all of them (weighted box fusion)."""
    iou_max: OpenShare = 0.5
    """Boxes of one class that overlap more than this are one object."""

    @property
    def is_on(self) -> bool:
        """Whether there is more to look at than the whole image."""
        return self.rows * self.columns > 1


class DrawConfig(Section):
    """Annotated frames."""

    enabled: bool = True
    """Write one annotated JPEG a frame."""
    score_min: Share = 0.3
    """Only detections of at least this score are drawn; all are kept in the results."""
    truth: bool = False
    """Draw the records' own boxes too."""
    jpeg_quality: Annotated[int, Field(ge=30, le=100)] = 90
    """Quality of the annotated JPEGs."""


class SampleConfig(Section):
    """Which frames of the input are looked at. All, unless one of the two is set."""

    every: Positive = 1
    """Every N-th frame of each file, video or folder of images, the first one included."""
    per_second: Annotated[float, Field(gt=0, le=240)] | None = None
    """Of a video at most so many frames a second, by the frames' own times."""

    @model_validator(mode="after")
    def _one_of_both(self) -> Self:
        if self.every > 1 and self.per_second is not None:
            raise ValueError(
                f"every is {self.every} and per_second {self.per_second:g}: both choose frames; "
                "give one of them"
            )
        return self

    @property
    def is_on(self) -> bool:
        """Whether frames are left out."""
        return self.every > 1 or self.per_second is not None


class ShardConfig(Section):
    """A shard is the unit of work and of commit: consecutive records of one file."""

    frames: Positive | None = None
    """Records in a shard at most; None is 64, fewer where the input is small, so that the actors
    end together."""
    megabytes: Positive = 32
    """Encoded bytes in a shard at most, so that memory stays bounded whatever the frames' size."""


class ActorConfig(Section):
    """The pool of model actors."""

    min: Positive | None = None
    """Actors at the start; None fills the cores, or the GPUs where `gpus` is set."""
    max: Positive | None = None
    """Ray Data grows the pool up to this; None is the same as min."""
    gpus: Annotated[float, Field(ge=0)] = 0
    """GPUs an actor holds; 0.5 puts two actors on one GPU."""
    shards_in_flight: Positive | None = None
    """Shards an actor works on at a time; None is 1 on a CPU, 2 on a GPU, so that one shard is
    decoded while the other is drawn and written."""
    decode_threads: Count | None = None
    """Threads an actor decodes with; 0 decodes in turn with the model. None is 0 on a CPU, where
    actors already fill the cores (docs/explanation/performance.md), 4 on a GPU."""
    draw_threads: Count | None = None
    """Threads an actor draws, encodes and writes with; None is 0 on a CPU, 4 on a GPU, and at
    least 4 where the output is s3://, to hide its latency."""

    @model_validator(mode="after")
    def _min_up_to_max(self) -> Self:
        if self.min is not None and self.max is not None and self.min > self.max:
            raise ValueError(
                f"min is {self.min}, above max {self.max}: the pool starts with min actors and "
                "grows up to max; give a max of at least min, or leave it out"
            )
        return self


class TrackConfig(Section):
    """How detections become tracks. The defaults are for 10 frames a second."""

    score_high: Share = 0.5
    """Detections from here are matched first, and only they can start a track."""
    score_low: Share = 0.1
    """Detections from here can continue a track; below they are not looked at."""
    match_iou: OpenShare = 0.2
    """A sure detection must overlap a track's predicted box by this much. Lower keeps hold of what
    is near and fast, higher swaps fewer ids where people cross; 0.2 is ByteTrack's own."""
    match_iou_low: OpenShare = 0.3
    """The same for unsure detections."""
    frames_kept: Positive = 10
    """A track ends after more than this many frames in a row without a match."""
    min_hits: Positive = 3
    """Tracks of fewer detections get no id."""

    @model_validator(mode="after")
    def _scores_in_order(self) -> Self:
        if self.score_low > self.score_high:
            raise ValueError(
                f"score_low is {self.score_low:g}, above score_high {self.score_high:g}: what lies "
                "between the two continues a track, so score_low has to be the lower one"
            )
        return self


class InferTrackConfig(TrackConfig):
    """Track ids, given once all frames are done. They change nothing else: a finished run can be
    tracked later, or again by other rules."""

    enabled: bool = False
    """Give ids at the end of the run, as `urbandet track` does."""

    @property
    def rules(self) -> TrackConfig:
        """The rules alone, as `urbandet track` takes them."""
        return TrackConfig(**self.model_dump(exclude={"enabled"}))


class InferConfig(Section):
    """`urbandet infer`, jobs/batch_infer.py."""

    input: str
    """TFRecords, a folder of images or a video; local or s3://."""
    output: str
    """Run folder; local or s3://. An unfinished run of the same settings is resumed."""
    model: ModelConfig = ModelConfig()
    backend: Literal["given", "auto"] = "given"
    """auto measures on this machine, once: threads, actors and batch of the model, and which export
    where model.uri is a training run's folder. The choice is kept in the run folder."""
    tiles: TilesConfig = TilesConfig()
    labels: str | None = None
    """Our classes (label_map.pbtxt); None is 1 vehicle, 2 pedestrian, 4 cyclist."""
    batch_size: Positive | None = None
    """Frames the model is given at a time; None is what it works best with."""
    max_bad_records: Count = 100
    """More dead letters than this fail the run."""
    max_silence_minutes: Positive | None = 60
    """A run that commits no shard for this long ends, and the same command resumes it; None waits
    for ever. What it waits for is said each minute."""
    max_pixels: Positive = 100_000_000
    """Larger images become dead letters before they are decoded."""
    reduced_decode: bool = False
    """Decode JPEGs no larger than the model's input needs, where libjpeg can (halves, quarters,
    eighths between). For frames much larger than the input, without drawing; mAP may move."""
    coco: bool = False
    """Also write coco/results.json and coco/images.json."""
    coco_images: str | None = None
    """A COCO file (instances JSON) of the input, whose image ids and category ids coco/ takes, so
    that the results can be joined with it; implies coco. None counts images from 1."""
    sample: SampleConfig = SampleConfig()
    draw: DrawConfig = DrawConfig()
    track: InferTrackConfig = InferTrackConfig()
    shard: ShardConfig = ShardConfig()
    actors: ActorConfig = ActorConfig()
    ray: RayConfig = RayConfig()
    storage: StorageConfig = StorageConfig()

    @model_validator(mode="after")
    def _output_beside_input(self) -> Self:
        data, run = absolute_uri(self.input), absolute_uri(self.output)
        if run.startswith(data.rstrip("/") + "/"):
            raise ValueError(
                f"the output {self.output} lies inside the input {self.input} and would become "
                "part of it: choose a run folder beside it"
            )
        return self

    @model_validator(mode="after")
    def _whole_frames_where_needed(self) -> Self:
        if self.reduced_decode and (self.draw.enabled or self.tiles.is_on):
            raise ValueError(
                "reduced_decode goes with neither drawing nor tiles, which need whole frames: give "
                "--no-draw (urbandet video draws later), or leave it out"
            )
        return self

    @model_validator(mode="after")
    def _gpus_for_tensorrt(self) -> Self:
        if self.model.compiler == "tensorrt" and not self.actors.gpus:
            raise ValueError(
                "model.compiler is tensorrt, which compiles for GPUs, and actors.gpus is 0: set "
                "actors.gpus, or leave model.compiler out"
            )
        return self


class EvalConfig(Section):
    """`urbandet eval`, jobs/evaluate.py."""

    run: str
    """Run folder of an inference."""
    truth: str
    """Records with labels: the run's input or a copy of it."""
    output: str | None = None
    """Where metrics.json goes; None is the run folder."""
    storage: StorageConfig = StorageConfig()


class VideoConfig(Section):
    """`urbandet video`, jobs/make_video.py."""

    run: str
    """Run folder of an inference."""
    output: str
    """The video: .mp4, .webm or .gif; local or s3://."""
    fps: Annotated[float, Field(gt=0, le=240)] | None = None
    """Frames a second; None plays at the pace of the frames' own times, and shows frames whose time
    nobody says for a tenth of a second each."""
    source: Literal["auto", "frames", "records"] = "auto"
    """The run's annotated frames, or its input drawn anew; auto draws anew where it must."""
    input: str | None = None
    """Where the run's input is now, if it moved."""
    score_min: Share | None = None
    """Draw only detections of at least this score; None is what the run drew."""
    truth: bool = False
    """Draw the records' own boxes too."""
    segment: str | None = None
    """Only this segment."""
    compare: str | None = None
    """A second run over the same input, shown to the right."""
    tracks: bool = False
    """Show each track's number and its trail; the run needs `urbandet track` first."""
    storage: StorageConfig = StorageConfig()

    @model_validator(mode="after")
    def _tracks_are_drawn_anew(self) -> Self:
        if self.tracks and self.source == "frames":
            raise ValueError(
                "source is frames, and the run's annotated frames were drawn before it had tracks: "
                "leave out source=frames, so that they are drawn anew from the run's input"
            )
        return self
