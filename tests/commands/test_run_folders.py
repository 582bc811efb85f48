"""Whatever opens a run folder says which kind of run, or what else, it was given."""

import importlib.util
from collections.abc import Callable
from pathlib import Path

import pytest
from conftest import REPOSITORY
from drives import write_drive
from manifests import inference_manifest, training_manifest

from urbandet_ray.commands.bench import bench
from urbandet_ray.commands.evaluate import evaluate
from urbandet_ray.commands.export import export
from urbandet_ray.commands.infer import infer
from urbandet_ray.commands.track import track
from urbandet_ray.commands.video import make_video
from urbandet_ray.config import EvalConfig, InferConfig, ModelConfig, TrackConfig, VideoConfig
from urbandet_ray.entrypoints import sagemaker_batch
from urbandet_ray.entrypoints.serve import load_service
from urbandet_ray.errors import UrbandetError
from urbandet_ray.inference.backend_choice import candidates
from urbandet_ray.json_files import to_json
from urbandet_ray.storage import Storage

STORAGE = Storage()


def job(name: str, *arguments: str) -> None:
    """Run jobs/NAME.py; raises what it prints as an error."""
    spec = importlib.util.spec_from_file_location(name, REPOSITORY / "jobs" / f"{name}.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    assert module.main(list(arguments)) == 1


def compare(run: str, tmp: Path) -> None:
    """A good run beside what was given."""
    good = tmp / "good"
    good.mkdir(parents=True)
    (good / "run.json").write_bytes(to_json(inference_manifest(sources=0).to_dict()))
    make_video(VideoConfig(run=run, compare=str(good), output=str(tmp / "a.gif")))


def batch(run: str, tmp: Path) -> None:
    """SageMaker's processing job whose output folder it is; the reason is left for SageMaker."""
    root = Path(run).parent
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PROCESSING_BASE_DIR", str(root))
        write_drive(root / "input" / "records" / "a.tfrecord", 1)
        assert sagemaker_batch.main([]) == 1
    raise UrbandetError((root.parent / "output" / "message").read_text())


def video_job(run: str, tmp: Path) -> None:
    """jobs/make_video.py as `ray job submit` starts it."""
    job("make_video", f"run={run}", f"output={tmp / 'a.gif'}")


def eval_job(run: str, tmp: Path) -> None:
    """jobs/evaluate.py."""
    job("evaluate", f"run={run}", f"truth={tmp}")


Opens = Callable[[str, Path], object]

READERS: dict[str, Opens] = {
    "eval": lambda run, tmp: evaluate(EvalConfig(run=run, truth=str(tmp))),
    "video": lambda run, tmp: make_video(VideoConfig(run=run, output=str(tmp / "a.gif"))),
    "compare": compare,
    "track": lambda run, tmp: track(run, TrackConfig(), STORAGE),
    "eval job": eval_job,
    "video job": video_job,
}
"""They read an inference's run folder."""

WRITERS: dict[str, Opens] = {
    "infer": lambda run, tmp: infer(InferConfig(input=drive(tmp), output=run)),
    "coco": lambda run, tmp: infer(InferConfig(input=drive(tmp), output=run, coco=True)),
    "backend=auto": lambda run, tmp: infer(
        InferConfig(input=drive(tmp), output=run, backend="auto")
    ),
    "SageMaker's batch": batch,
}
"""They begin or resume an inference in it."""


MODELS: dict[str, Opens] = {
    "infer --model": lambda run, tmp: infer(
        InferConfig(input=drive(tmp), output=str(tmp / "new"), model=ModelConfig(uri=run))
    ),
    "candidates": lambda run, tmp: candidates(ModelConfig(uri=run), STORAGE),
    "bench": lambda run, tmp: bench(
        InferConfig(input=drive(tmp), output="-"), [run], say=lambda _: None
    ),
    "serve": lambda run, tmp: load_service(run),
}
"""They want a model, or a training run with exports."""


def drive(tmp: Path) -> str:
    """A record to infer, outside of the run folder."""
    return str(write_drive(tmp / "records" / "a.tfrecord", 1))


def told(opens: Opens, run: str, tmp: Path, capsys: pytest.CaptureFixture[str]) -> str:
    """The one message, of an error or on a job's log; a traceback fails the test."""
    try:
        opens(run, tmp)
    except UrbandetError as error:
        return str(error)
    return capsys.readouterr().err.removeprefix("error: ")


def folder(tmp: Path, run_json: bytes | None, **others: str) -> str:
    """processing/output with this run.json and other files."""
    run = tmp / "processing" / "output"
    run.mkdir(parents=True)
    if run_json is not None:
        (run / "run.json").write_bytes(run_json)
    for name, text in others.items():
        (run / name.replace("_", ".")).write_text(text)
    return str(run)


TRAINING, INFERENCE = (
    to_json(one.to_dict()) for one in (training_manifest(), inference_manifest())
)

DAMAGED: dict[str, tuple[bytes, str]] = {
    "truncated": (INFERENCE[:100], "run.json is damaged: it is no whole JSON"),
    "a list": (b"[]", "run.json is damaged: it is a list, expected an object"),
    "another tool's": (b'{"run_id": 1}', "run.json was not written by urbandet"),
    "no sources": (INFERENCE.replace(b'"sources"', b'"source"'), "run.json is damaged: it lacks"),
    "wrong type": (INFERENCE.replace(b'"size_bytes": 100', b'"size_bytes": "100"'), "expected an"),
}


@pytest.mark.parametrize("opens", READERS.values(), ids=READERS)
def test_a_training_run_is_no_inference(
    opens: Opens, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """It was KeyError: 'sources'. The message says how to come to an inference."""
    run = folder(tmp_path, TRAINING)
    message = told(opens, run, tmp_path, capsys)
    assert f"{run} holds a training run, expected an inference run: export what it" in message
    assert f"urbandet export {run}" in message


@pytest.mark.parametrize("opens", [*READERS.values(), *WRITERS.values()], ids=[*READERS, *WRITERS])
@pytest.mark.parametrize(("content", "words"), DAMAGED.values(), ids=DAMAGED)
def test_a_damaged_or_foreign_manifest_is_named(
    content: bytes, words: str, opens: Opens, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The file, what is wrong with it, and what to do."""
    assert words in told(opens, folder(tmp_path, content), tmp_path, capsys)


@pytest.mark.parametrize("opens", READERS.values(), ids=READERS)
def test_what_is_no_run_folder_is_told_as_what_it_is(
    opens: Opens, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """An empty folder, and one of records."""
    run = folder(tmp_path, None)
    assert "it has no run.json; it is empty. Give" in told(opens, run, tmp_path / "a", capsys)
    (Path(run) / "a.tfrecord").write_text("")
    assert "no run.json; it holds records" in told(opens, run, tmp_path / "b", capsys)
    assert "it is a file" in told(opens, f"{run}/a.tfrecord", tmp_path / "c", capsys)
    assert "nothing is there" in told(opens, f"{run}/absent", tmp_path / "d", capsys)


@pytest.mark.parametrize("opens", WRITERS.values(), ids=WRITERS)
def test_an_inference_does_not_begin_in_a_training_run(
    opens: Opens, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Nor in a folder of something else."""
    message = told(opens, folder(tmp_path, TRAINING), tmp_path, capsys)
    assert "holds a training run, and this is an inference run: choose another output" in message


def test_export_wants_a_training_run(tmp_path: Path) -> None:
    """An inference run, a damaged one and none."""
    run = folder(tmp_path, INFERENCE)
    with pytest.raises(
        UrbandetError, match="holds an inference run, expected a training run: give"
    ):
        export(run, storage=STORAGE)
    (Path(run) / "run.json").write_text("{")
    with pytest.raises(UrbandetError, match=r"run\.json is damaged: it is no whole JSON"):
        export(run, storage=STORAGE)
    (Path(run) / "run.json").unlink()
    with pytest.raises(
        UrbandetError, match=r"no training run .* \(it is empty\); give the run fol"
    ):
        export(run, storage=STORAGE)


@pytest.mark.parametrize("opens", MODELS.values(), ids=MODELS)
def test_a_run_is_no_model(
    opens: Opens, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A training is exported first; an inference names the model that it ran."""
    run = folder(tmp_path, TRAINING)
    message = told(opens, run, tmp_path, capsys)
    assert f"{run} is a training run, not a model: " in message
    assert f"urbandet export {run}" in message
    (Path(run) / "run.json").write_bytes(INFERENCE)
    message = told(opens, run, tmp_path, capsys)
    assert f"{run} is an inference run, not a model: it ran 'shipped'" in message
