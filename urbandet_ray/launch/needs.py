"""What a run asks of storage and of a cluster, read off its config."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from urbandet_ray.config import EvalConfig, InferConfig, TrainConfig
from urbandet_ray.config.sizing import (
    Nodes,
    fit_actors,
    fitting,
    shard_bytes,
    shards_at_an_actor,
    worker_bundle,
)
from urbandet_ray.launch.order import RunConfig
from urbandet_ray.storage import is_remote

LARGE_FRAME_BYTES = 200_000
"""Of an encoded frame; twice what is usual at 1 megapixel."""

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
        bundle: resources that each asks of Ray.
        least: fewer than these, and it waits for ever.
        most: it grows to so many.
        fills: what each fills of a node: an actor asks for a little less than the cores it fills,
            and readers take the rest; None is the bundle.
    """

    what: str
    bundle: dict[str, float]
    least: int
    most: int
    fills: dict[str, float] | None = None

    def room(self, node: Mapping[str, float]) -> int:
        """How many of them an empty node has room for."""
        return fitting(self.fills or self.bundle, node)


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


def processes_of(config: RunConfig, nodes: Nodes) -> Need | None:
    """The actors or workers that the run would ask these nodes for; None where the driver does all
    the work.

    Args:
        nodes: each node alive, the driver's first.

    Raises:
        RunError: the run would refuse to start on them.
    """
    if isinstance(config, TrainConfig):
        workers = config.workers
        bundle = worker_bundle(workers, nodes)
        return Need("worker", bundle, workers.min or workers.count, workers.count)
    if isinstance(config, InferConfig):
        size = fit_actors(config.actors, config.model.threads, nodes)
        if size.gpus:
            return Need("actor", {"GPU": size.gpus}, size.smallest, size.largest)
        cores = {"CPU": float(size.cores)}
        return Need("actor", {"CPU": size.cpus}, size.smallest, size.largest, cores)
    return None


def wants_gpus(config: RunConfig) -> bool:
    """Whether its actors or workers hold GPUs."""
    if isinstance(config, TrainConfig):
        return bool(config.workers.gpus)
    return isinstance(config, InferConfig) and bool(config.actors.gpus)


def object_store_bytes(config: RunConfig) -> int:
    """What one actor may have in the object store; 0 where nothing goes through it."""
    if not isinstance(config, InferConfig):
        return 0
    return shards_at_an_actor(config.actors) * shard_bytes(config.shard, LARGE_FRAME_BYTES)


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
