"""What a run asks of storage and of a cluster, read off its config."""

from __future__ import annotations

from dataclasses import dataclass

from urbandet_ray.config import EvalConfig, InferConfig, TrainConfig
from urbandet_ray.launch.order import RunConfig
from urbandet_ray.storage import is_remote

LARGE_FRAME_BYTES = 200_000
"""Of an encoded frame; twice what is usual at 1 megapixel."""

SHARDS_WAITING = 3
"""Shards an actor has in the object store beside those it works on."""

_NAMED = {"shipped", "coco-to-street"}


@dataclass(frozen=True)
class ConfigPlace:
    """A place that a run reads or writes.

    Attributes:
        key: the config's, such as "model.uri".
        uri: a file, a folder or a pattern.
        write: the run writes there, and reads what it wrote.
        data: it is read as a whole, onto every node's disk.
        checkpoint: the URI may be a prefix: URI.index and URI.data-* are the files.
    """

    key: str
    uri: str
    write: bool = False
    data: bool = False
    checkpoint: bool = False

    @property
    def folder(self) -> str:
        """Where a run that writes a single file (a video) writes it; else the URI itself."""
        name = self.uri.rstrip("/").rpartition("/")[2]
        if self.write and name.endswith((".mp4", ".webm", ".gif")):
            return self.uri[: -len(name)].rstrip("/")
        return self.uri.rstrip("/")


@dataclass(frozen=True)
class Need:
    """Processes that a run starts on a cluster.

    Attributes:
        what: "actor" or "worker".
        bundle: resources of each.
        least: fewer than these, and it waits for ever.
        most: it grows to so many.
    """

    what: str
    bundle: dict[str, float]
    least: int
    most: int


def places_of(config: RunConfig) -> list[ConfigPlace]:
    """Every place that the config names."""
    if isinstance(config, TrainConfig):
        return _of_training(config)
    if isinstance(config, InferConfig):
        model = config.model
        read = {
            "input": config.input,
            "model.uri": model.uri,
            "model.labels": model.labels,
            "model.mapping": model.mapping,
            "labels": config.labels,
        }
        return [*_read(read), ConfigPlace("output", config.output, write=True)]
    if isinstance(config, EvalConfig):
        written = ConfigPlace("run", config.run, write=True)
        if config.output:
            written = ConfigPlace("output", config.output, write=True)
        read = {"run": config.run if config.output else None, "truth": config.truth}
        return [*_read(read), written]
    read = {"run": config.run, "compare": config.compare, "input": config.input}
    return [*_read(read), ConfigPlace("output", config.output, write=True)]


def _of_training(config: TrainConfig) -> list[ConfigPlace]:
    tune = config.fine_tune
    read = {
        "pipeline": config.pipeline if config.pipeline and "/" in config.pipeline else None,
        "labels": config.labels,
        "fine_tune.labels": tune.labels,
        "fine_tune.mapping": tune.mapping,
    }
    places = [ConfigPlace("data", config.data, data=True)] if config.data else []
    places += _read(read)
    if tune.checkpoint and "/" in tune.checkpoint:
        places.append(ConfigPlace("fine_tune.checkpoint", tune.checkpoint, checkpoint=True))
    return [*places, ConfigPlace("output", config.output, write=True)]


def _read(places: dict[str, str | None]) -> list[ConfigPlace]:
    return [ConfigPlace(key, uri) for key, uri in places.items() if uri and uri not in _NAMED]


def processes_of(config: RunConfig) -> Need | None:
    """The actors or workers; None where the driver does all the work."""
    if isinstance(config, TrainConfig):
        workers = config.workers
        bundle = {"CPU": float(workers.cpus or 1)}
        if workers.gpus:
            bundle["GPU"] = workers.gpus
        return Need("worker", bundle, workers.min or workers.count, workers.count)
    if isinstance(config, InferConfig):
        actors = config.actors
        cores = max(config.model.threads - 0.2, 0.8)  # readers take the rest
        bundle = {"GPU": actors.gpus} if actors.gpus else {"CPU": cores}
        least = actors.min or 1
        return Need("actor", bundle, least, max(least, actors.max or least))
    return None


def object_store_bytes(config: RunConfig) -> int:
    """What one actor may have in the object store; 0 where nothing goes through it."""
    if not isinstance(config, InferConfig):
        return 0
    in_flight = config.actors.shards_in_flight or (2 if config.actors.gpus else 1)
    shard = min(config.shard.megabytes << 20, (config.shard.frames or 64) * LARGE_FRAME_BYTES)
    return (in_flight + SHARDS_WAITING) * shard


def gpus_compute(config: RunConfig) -> bool:
    """Whether TensorFlow itself has to see the GPUs that the run asks for."""
    if isinstance(config, TrainConfig):
        return bool(config.workers.gpus)
    if isinstance(config, InferConfig):
        model = config.model.uri
        return bool(config.actors.gpus) and model != "shipped" and not model.endswith(".tflite")
    return False


def results_of(config: RunConfig) -> str:
    """Where the results will be."""
    if isinstance(config, EvalConfig):
        return f"{(config.output or config.run).rstrip('/')}/metrics.json"
    return config.output


def local_places(config: RunConfig) -> list[ConfigPlace]:
    """Places that are no URIs."""
    return [place for place in places_of(config) if not is_remote(place.uri)]


def remote_places(config: RunConfig) -> list[ConfigPlace]:
    """Places on S3."""
    return [place for place in places_of(config) if is_remote(place.uri)]
