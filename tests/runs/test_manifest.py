"""run.json: two kinds of run, what resumes, and what is refused in which words."""

import json
from pathlib import Path
from typing import Any

import pytest
from manifests import FINGERPRINT, inference_manifest, training_manifest

from urbandet_ray.errors import NotFoundError, RunError
from urbandet_ray.json_files import to_json
from urbandet_ray.runs.manifest import (
    InferenceManifest,
    TrainingManifest,
    begin_run,
    find_manifest,
    read_manifest,
)
from urbandet_ray.storage import Storage

STORAGE = Storage()
INFERENCE, TRAINING = inference_manifest(), training_manifest()


def write(folder: Path, data: object) -> str:
    """A folder with this run.json (bytes as they are, all else as JSON)."""
    folder.mkdir(exist_ok=True)
    text = data if isinstance(data, bytes) else to_json(data)
    (folder / "run.json").write_bytes(text)
    return str(folder)


@pytest.mark.parametrize("manifest", [INFERENCE, TRAINING], ids=["inference", "training"])
def test_what_is_written_is_read_again(
    manifest: InferenceManifest | TrainingManifest, tmp_path: Path
) -> None:
    """The kind stands in the file, and the first try's file stays as it was."""
    run = str(tmp_path / "run")
    assert begin_run(manifest, run, STORAGE) is False
    before = (tmp_path / "run" / "run.json").read_bytes()
    assert json.loads(before)["kind"] == manifest.kind
    assert read_manifest(run, STORAGE, type(manifest)) == manifest
    assert begin_run(manifest, run, STORAGE) is True
    assert (tmp_path / "run" / "run.json").read_bytes() == before


def test_a_run_of_version_0_1_0_is_read_and_resumed(tmp_path: Path) -> None:
    """Its run.json does not say that it is an inference."""
    old = INFERENCE.to_dict()
    del old["kind"]
    run = write(tmp_path / "run", old)
    assert read_manifest(run, STORAGE, InferenceManifest) == INFERENCE
    assert begin_run(INFERENCE, run, STORAGE) is True


@pytest.mark.parametrize("part", ["model", "settings", "input"])
def test_another_run_is_refused_by_what_differs(tmp_path: Path, part: str) -> None:
    """The message names the part."""
    begin_run(INFERENCE, str(tmp_path / "run"), STORAGE)
    other = inference_manifest(fingerprint={**FINGERPRINT, part: "x"})
    with pytest.raises(RunError, match=f"holds a run with another {part}: choose another output"):
        begin_run(other, str(tmp_path / "run"), STORAGE)


@pytest.mark.parametrize(
    ("first", "second", "words"),
    [
        (TRAINING, INFERENCE, "holds a training run, and this is an inference run: choose another"),
        (INFERENCE, TRAINING, "holds an inference run, and this is a training run: choose another"),
    ],
)
def test_a_run_does_not_go_into_a_folder_of_the_other_kind(
    first: Any, second: Any, words: str, tmp_path: Path
) -> None:
    """`urbandet infer --out` a training, `urbandet train --out` an inference."""
    begin_run(first, str(tmp_path / "run"), STORAGE)
    with pytest.raises(RunError, match=words):
        begin_run(second, str(tmp_path / "run"), STORAGE)


def test_a_folder_with_other_files_is_refused(tmp_path: Path) -> None:
    """Nobody's photos get mixed with a run."""
    (tmp_path / "thesis.txt").write_text("mine")
    with pytest.raises(RunError, match=r"not empty and not a run \(.*thesis.txt is in it\)"):
        begin_run(INFERENCE, str(tmp_path), STORAGE)


@pytest.mark.parametrize(
    ("there", "wanted", "words"),
    [
        (TRAINING, InferenceManifest, "holds a training run, expected an inference run: export wh"),
        (INFERENCE, TrainingManifest, "holds an inference run, expected a training run: give the"),
    ],
)
def test_the_other_kind_is_refused_with_what_to_do(
    there: Any, wanted: Any, words: str, tmp_path: Path
) -> None:
    """`urbandet eval` of a training, `urbandet export` of an inference."""
    run = write(tmp_path / "run", there.to_dict())
    with pytest.raises(RunError, match=words):
        read_manifest(run, STORAGE, wanted)


def without(key: str, manifest: Any = INFERENCE) -> dict[str, Any]:
    """A run.json that lacks a key."""
    return {name: value for name, value in manifest.to_dict().items() if name != key}


DAMAGED = {
    "empty": (b"", "damaged: it is no whole JSON"),
    "no JSON": (b"model: shipped", "damaged: it is no whole JSON"),
    "truncated": (to_json(INFERENCE.to_dict())[:200], "damaged: it is no whole JSON"),
    "no text": (b"\xff\xfe\x00", "damaged: it is no whole JSON"),
    "a list": ([], "damaged: it is a list, expected an object"),
    "a number": (7, "damaged: it is 7, expected an object"),
    "of the future": (
        INFERENCE.to_dict() | {"format": 99},
        "it has format 99, expected 1. Use",
    ),
    "another kind": (
        INFERENCE.to_dict() | {"kind": "tuning"},
        "its kind is 'tuning', expected inf",
    ),
    "MLflow's": ({"info": {"run_id": "1"}}, "was not written by urbandet: it has no format"),
    "with a format of its own": ({"format": 1, "model": "x"}, "was not written by urbandet"),
    "no sources": (without("sources"), "damaged: it lacks 'sources'"),
    "no input": (without("input"), "damaged: it lacks 'input'"),
    "no labels": (without("labels"), "it lacks 'labels'"),
    "no fingerprint": (without("fingerprint"), "damaged: it lacks 'fingerprint'"),
    "no steps": (without("steps", TRAINING), "damaged: it lacks 'steps'"),
    "sources in words": (
        INFERENCE.to_dict() | {"sources": "three"},
        'damaged: sources is "three", expected an integer',
    ),
    "a class without number": (
        INFERENCE.to_dict() | {"labels": {"one": "vehicle"}},
        "damaged: labels is an object, expected class ids and names (invalid literal",
    ),
    "no class": (
        INFERENCE.to_dict() | {"labels": {}},
        "expected class ids and names",
    ),
    "no draw": (INFERENCE.to_dict() | {"settings": {}}, "expected settings that hold a draw sec"),
    "a draw of words": (
        INFERENCE.to_dict() | {"settings": {"draw": {"score_min": "low"}}},
        "expected a draw section with values of DrawConfig",
    ),
    "no score": (INFERENCE.to_dict() | {"model": {}}, "a model section with a number as score_min"),
}


@pytest.mark.parametrize(("data", "words"), DAMAGED.values(), ids=DAMAGED)
def test_a_damaged_or_foreign_manifest_is_refused(data: object, words: str, tmp_path: Path) -> None:
    """By whoever reads it, and by a run that would begin there."""
    run = write(tmp_path / "run", data)
    with pytest.raises(RunError) as refused:
        find_manifest(run, STORAGE)
    assert words in str(refused.value)
    assert "run.json" in str(refused.value)
    with pytest.raises(RunError, match=r"run\.json"):
        begin_run(INFERENCE, run, STORAGE)


PLACES: dict[str, tuple[list[str], str]] = {
    "an empty folder": ([], "it is empty"),
    "a folder of records": (["train/a.tfrecord", "val/b.tfrecord"], "it holds records"),
    "Ray Train's": (
        ["checkpoint_1/x", "checkpoint_manager_snapshot.json"],
        "it is Ray Train",
    ),
    "Ray Tune's": (["tuner.pkl", "trial/result.json"], "it is Ray Tune's own folder"),
    "SageMaker's": (["output/model.tar.gz"], "it holds model.tar.gz, as the output of a SageMaker"),
    "an export": (["export.json", "network.json", "model.xml"], "it is an export, a model to infe"),
    "a SavedModel": (["saved_model.pb", "variables/v"], "it is a SavedModel"),
    "a zoo model": (["checkpoint/ckpt-0.index", "pipeline.config"], "it holds checkpoints"),
    "photos": (["a.txt", "b.txt", "c.txt", "d.txt"], "it holds a.txt, b.txt, c.txt and 1 more"),
    "the folder above": (["run/run.json", "run/x"], r"there is a run in .*/place/run\."),
    "a folder of runs": (["a/run.json", "b/run.json"], r"there is a run in .*/place/a and 1 more"),
}


@pytest.mark.parametrize(("files", "words"), PLACES.values(), ids=PLACES)
def test_what_is_no_run_folder_is_told_as_what_it_is(
    files: list[str], words: str, tmp_path: Path
) -> None:
    """A person took it for one: the message says what they have and what to give."""
    place = tmp_path / "place"
    place.mkdir()
    for name in files:
        (place / name).parent.mkdir(parents=True, exist_ok=True)
        (place / name).write_text("")
    with pytest.raises(NotFoundError, match=rf"place is not a run folder: .*run\.json; {words}"):
        read_manifest(str(place), STORAGE, InferenceManifest)


@pytest.mark.parametrize("kind", [InferenceManifest, TrainingManifest])
def test_a_place_that_is_not_there_names_the_command_that_makes_one(
    kind: Any, tmp_path: Path
) -> None:
    """A typing error in the path."""
    command = {"inference": "infer", "training": "train"}[kind.kind]
    with pytest.raises(NotFoundError, match=rf"nothing is there\. Give .* `urbandet {command} --o"):
        read_manifest(str(tmp_path / "runn"), STORAGE, kind)


def test_a_file_is_no_run_folder(tmp_path: Path) -> None:
    """`urbandet eval run/run.json`."""
    run = write(tmp_path / "run", INFERENCE.to_dict())
    with pytest.raises(NotFoundError, match=r"run\.json is not a run folder: .*; it is a file\."):
        read_manifest(f"{run}/run.json", STORAGE, InferenceManifest)


@pytest.mark.s3
def test_the_same_words_for_a_bucket(s3_server: Any) -> None:
    """Listing a prefix tells what is there."""
    bucket = s3_server.make_bucket("manifests")
    storage = Storage(s3_server.options)
    with pytest.raises(NotFoundError, match=r"no run\.json; nothing is there\. Give the folder"):
        read_manifest(f"{bucket}/runs/a", storage, InferenceManifest)
    storage.write_bytes(f"{bucket}/runs/b/run.json", to_json(TRAINING.to_dict()))
    with pytest.raises(RunError, match="runs/b holds a training run, expected an inference run"):
        read_manifest(f"{bucket}/runs/b", storage, InferenceManifest)
    with pytest.raises(NotFoundError, match=r"there is a run in s3://manifests/runs/b\."):
        read_manifest(f"{bucket}/runs", storage, InferenceManifest)
