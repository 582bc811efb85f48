"""run.json: what a run folder holds, said once, before anything else is written there.

An inference's and a training's folder each have one, told apart by `kind`. Its fingerprint decides
whether a later try resumes the run or is refused.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Annotated, Any, ClassVar, Literal, TypeVar

from pydantic import PlainValidator

from urbandet_ray.config.inference_config import DrawConfig
from urbandet_ray.errors import ConfigError, LabelError, NotFoundError, RunError, StorageError
from urbandet_ray.json_files import parse_value, to_json
from urbandet_ray.labels import LabelMap
from urbandet_ray.runs.lock import LOCK_NAME
from urbandet_ray.runs.strangers import describe_place
from urbandet_ray.storage.files import Storage, join_uri

MANIFEST_NAME, BACKEND_NAME = "run.json", "backend.json"
FORMAT = 1

_REMEDY = "Restore it from a copy, or repeat the run with another output folder"


_KINDS = Literal["inference", "training"]


def _read_labels(given: object) -> LabelMap:
    if isinstance(given, LabelMap):
        return given
    if not isinstance(given, dict):
        raise ValueError("an object of class ids and names")
    try:
        return LabelMap.from_dict(given)
    except (LabelError, ValueError) as error:
        raise ValueError(f"class ids and names ({error})") from None


Labels = Annotated[LabelMap, PlainValidator(_read_labels)]


@dataclass(frozen=True)
class InferenceManifest:
    """What an inference ran.

    Attributes:
        version: of this package.
        input: where the records were.
        model: the config's model section.
        labels: the classes of its detections.
        settings: the parts of the config that decide its results.
        sources, size_bytes: how many files there were, and their sizes together.
        fingerprint: hashes of model, settings and input.
        files: what of the input is read and what is left out (InputContents of records/).
        cut: how its input is cut into shards (CutRule of inference/); a resume goes on with it.
            Empty in runs of versions before 0.3.
    """

    kind: ClassVar[_KINDS] = "inference"

    version: str
    input: str
    model: dict[str, Any]
    labels: Labels
    settings: dict[str, Any]
    sources: int
    size_bytes: int
    fingerprint: dict[str, str]
    files: dict[str, Any] = field(default_factory=dict)
    cut: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        _ = self.draw, self.score_min  # a run.json that lacks them is refused when it is read

    @property
    def draw(self) -> DrawConfig:
        """How its frames were drawn."""
        if not isinstance(self.settings.get("draw"), dict):
            raise ValueError("settings that hold a draw section")
        known = {k: v for k, v in self.settings["draw"].items() if k in DrawConfig.model_fields}
        try:
            return DrawConfig(**known)
        except (ConfigError, ValueError):
            raise ValueError("a draw section with values of DrawConfig") from None

    @property
    def is_sampled(self) -> bool:
        """Whether frames of its input were left out on purpose."""
        return "sample" in self.settings

    @property
    def kept_labels(self) -> LabelMap:
        """The classes whose detections it kept."""
        kept = self.model.get("classes")
        if not kept:
            return self.labels
        return LabelMap({one: name for one, name in self.labels.names.items() if name in kept})

    @property
    def score_min(self) -> float:
        """Detections below this were dropped."""
        score = self.model.get("score_min")
        if not isinstance(score, int | float) or isinstance(score, bool):
            raise ValueError("a model section with a number as score_min")
        return float(score)

    def to_dict(self) -> dict[str, Any]:
        """The content of run.json."""
        return {
            "format": FORMAT,
            "kind": self.kind,
            "urbandet_ray": self.version,
            "input": self.input,
            "model": self.model,
            "labels": self.labels.to_dict(),
            "settings": self.settings,
            "sources": self.sources,
            "size_bytes": self.size_bytes,
            "files": self.files,
            "cut": self.cut,
            "fingerprint": self.fingerprint,
        }


@dataclass(frozen=True)
class TrainingManifest:
    """What a training trains.

    Attributes:
        version: of this package.
        labels: its classes.
        steps: optimizer steps of the whole run.
        settings: the parts of the config that decide its results.
        fingerprint: hashes of settings, pipeline.config, records and labels.
    """

    kind: ClassVar[_KINDS] = "training"

    version: str
    labels: Labels
    steps: int
    settings: dict[str, Any]
    fingerprint: dict[str, str]

    def to_dict(self) -> dict[str, Any]:
        """The content of run.json."""
        return {
            "format": FORMAT,
            "kind": self.kind,
            "version": self.version,
            "labels": self.labels.to_dict(),
            "steps": self.steps,
            "settings": self.settings,
            "fingerprint": self.fingerprint,
        }


Manifest = InferenceManifest | TrainingManifest
Kind = TypeVar("Kind", InferenceManifest, TrainingManifest)

_WRITERS = {"inference": "urbandet infer", "training": "urbandet train"}
_INSTEAD = {
    "training": (
        "export what it trained (`urbandet export {uri}`), run that (`urbandet infer --model "
        "EXPORT --out RUN`), and give RUN here. The training's own mAP is in its metrics.jsonl"
    ),
    "inference": (
        "give the folder that `urbandet train --out` wrote; the model that this inference ran is "
        "named under model.uri in its run.json"
    ),
}


def read_manifest(uri: str, storage: Storage, kind: type[Kind]) -> Kind:
    """run.json of a run folder of the kind that the caller can work with.

    Args:
        uri: the run folder; local or s3://.
        storage: opens it.
        kind: InferenceManifest or TrainingManifest.

    Raises:
        NotFoundError: there is no run.json; the message says what is there instead.
        RunError: run.json is damaged, of another program, of another version's format, or tells of
            a run of the other kind.
    """
    found = find_manifest(uri, storage)
    if found is None:
        raise NotFoundError(
            f"{uri} is not a run folder: it has no {MANIFEST_NAME}; {describe_place(uri, storage)}."
            f" Give the folder that `{_WRITERS[kind.kind]} --out` wrote"
        )
    if not isinstance(found, kind):
        raise RunError(
            f"{uri} holds {_a_run(found)}, expected {_a_run(kind)}: "
            f"{_INSTEAD[found.kind].format(uri=uri)}"
        )
    return found


def has_run(uri: str, storage: Storage, kind: type[Manifest]) -> bool:
    """Whether there is a run in a folder that one of this kind is to be written to.

    Raises:
        RunError: there is one of the other kind, or its run.json is damaged.
    """
    existing = find_manifest(uri, storage)
    if existing is not None:
        _refuse_kind(existing, kind, uri)
    return existing is not None


def refuse_other_kind(uri: str, storage: Storage, kind: type[Kind]) -> None:
    """Let a folder pass that holds a run of this kind, or no run.json at all.

    Raises:
        RunError: as `read_manifest` does.
    """
    if find_manifest(uri, storage) is not None:
        read_manifest(uri, storage, kind)


def find_manifest(uri: str, storage: Storage) -> Manifest | None:
    """run.json of a run folder of either kind; None where there is none.

    Raises:
        RunError: run.json is damaged, of another program or of another version's format.
    """
    place = join_uri(uri, MANIFEST_NAME)
    try:
        text = storage.read_bytes(place)
    except NotFoundError:
        return None
    try:
        data = json.loads(text)
    except ValueError as error:  # also for bytes that are no text
        raise RunError(f"{place} is damaged: it is no whole JSON ({error}). {_REMEDY}") from None
    if not isinstance(data, dict):
        got = "a list" if isinstance(data, list) else json.dumps(data)[:40]
        raise RunError(f"{place} is damaged: it is {got}, expected an object. {_REMEDY}")
    return _parse(data, place)


def run_instead_of_model(uri: str, storage: Storage) -> str | None:
    """Why a run folder is no model, with what to name; None where it holds no run."""
    try:
        found = find_manifest(uri, storage)
    except (RunError, StorageError):
        return None
    if found is None:
        return None
    told = f"{uri} is {_a_run(found)}, not a model: "
    if isinstance(found, InferenceManifest):
        return f"{told}it ran {found.model.get('uri')!r}"
    return f"{told}name one of its exports, which `urbandet export {uri}` makes"


def begin_run(manifest: Manifest, uri: str, storage: Storage) -> bool:
    """Start a run in a folder, or resume the one that is there.

    Returns:
        True where an earlier try is resumed.

    Raises:
        RunError: the folder holds another run, or files that are no run at all.
    """
    existing = find_manifest(uri, storage)
    if existing is None:
        _refuse_strangers(uri, storage)
        storage.write_bytes(join_uri(uri, MANIFEST_NAME), to_json(manifest.to_dict()))
        return False
    _refuse_kind(existing, manifest, uri)
    ours, theirs = manifest.fingerprint, existing.fingerprint
    other = sorted(part for part in ours if ours[part] != theirs.get(part))
    if other:
        raise RunError(
            f"{uri} holds a run with another {', '.join(other)}: "
            "choose another output folder, or repeat the settings in its run.json to resume it"
        )
    return True


def _refuse_kind(existing: Manifest, ours: Manifest | type[Manifest], uri: str) -> None:
    if existing.kind != ours.kind:
        raise RunError(
            f"{uri} holds {_a_run(existing)}, and this is {_a_run(ours)}: "
            "choose another output folder"
        )


def _parse(data: dict[str, Any], place: str) -> Manifest:
    if "format" not in data or not ({"fingerprint", "kind"} & set(data)):
        raise RunError(
            f"{place} was not written by urbandet: it has no format and no fingerprint. Give the "
            "folder that `urbandet infer --out` or `urbandet train --out` wrote"
        )
    if data["format"] != FORMAT:
        raise RunError(
            f"{place} is not a run of this version's format: it has format {data['format']!r}, "
            f"expected {FORMAT}. Use the version of urbandet_ray that wrote it"
        )
    kind = data.get("kind", "inference")  # an inference did not say it in version 0.1.0
    if kind not in _WRITERS:
        known = " or ".join(_WRITERS)
        raise RunError(f"{place} is damaged: its kind is {kind!r}, expected {known}. {_REMEDY}")
    if kind == "training":
        return parse_value(to_json(data), place, TrainingManifest, _REMEDY)
    given = data | {"version": data.get("urbandet_ray")}
    return parse_value(to_json(given), place, InferenceManifest, _REMEDY)


def _refuse_strangers(uri: str, storage: Storage) -> None:
    """What is written before run.json may be there; anything else is somebody's."""
    early = {join_uri(uri, name) for name in (LOCK_NAME, BACKEND_NAME)}
    try:
        stray = next((f.uri for f in storage.list_files(uri) if f.uri not in early), None)
    except NotFoundError:
        return
    if stray is not None:
        raise RunError(
            f"{uri} is not empty and not a run ({stray} is in it): choose another output folder"
        )


def _a_run(one: Manifest | type[Manifest]) -> str:
    """`a training run`, `an inference run`."""
    return f"{'an' if one.kind[0] in 'aeiou' else 'a'} {one.kind} run"
