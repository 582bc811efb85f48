"""Whole runs on a real Ray with the shipped detector: nothing lost, nothing doubled."""

import json
import os
import shutil
import signal
import struct
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from waiting import wait_for

import urbandet_ray
from urbandet_ray.config import InferConfig
from urbandet_ray.errors import RunError
from urbandet_ray.inference.shards import CutRule
from urbandet_ray.records.tfrecord import masked_crc
from urbandet_ray.runs.lock import LOCK_NAME
from urbandet_ray.runs.run_folder import RunFolder
from urbandet_ray.storage import Storage

pytestmark = pytest.mark.ray
SETTINGS = {"shard": {"frames": 4}}


def contents(run: Path) -> dict[str, bytes]:
    """Every file of a run but the timings, by relative path."""
    files = (path for path in run.rglob("*") if path.is_file())
    return {
        str(path.relative_to(run)): path.read_bytes()
        for path in files
        if path.relative_to(run).parts[0] != "attempts"
    }


@pytest.fixture(scope="module")
def finished(ray_dashboard: str, drives: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An undisturbed run over both drives."""
    run = tmp_path_factory.mktemp("finished") / "run"
    report = urbandet_ray.infer(str(drives), str(run), coco=True, **SETTINGS)
    assert (report.frames, report.dead_letters, report.exit_code) == (20, 0, 0)
    return run


def test_every_frame_is_there_once_and_in_order(finished: Path) -> None:
    """Two drives of ten frames in shards of four, four and two."""
    folder = RunFolder(str(finished), Storage())
    markers = folder.markers()
    assert [m.frames for m in markers] == [4, 4, 2, 4, 4, 2]
    keys = [row.frame_key for marker in markers for row in folder.rows(marker)]
    assert keys == [f"street-{seed:04d}-{i:06d}" for seed in (7, 12) for i in range(10)]
    assert len(list((finished / "frames").rglob("*.jpg"))) == 20
    assert not (finished / LOCK_NAME).exists()


def test_coco_results_hold_every_detection(finished: Path) -> None:
    """As many rows as detections, images numbered in drive order."""
    results = json.loads((finished / "coco/results.json").read_text())
    images = json.loads((finished / "coco/images.json").read_text())["images"]
    markers = RunFolder(str(finished), Storage()).markers()
    assert len(results) == sum(marker.detections for marker in markers) > 0
    assert [image["id"] for image in images] == list(range(1, 21))


def test_the_shipped_detector_finds_something(finished: Path, drives: Path, tmp_path: Path) -> None:
    """End to end, boxes land where the truth is: far above chance on drives it never saw."""
    metrics = urbandet_ray.evaluate(str(finished), str(drives), output=str(tmp_path)).metrics
    assert json.loads((tmp_path / "metrics.json").read_text())["ap50"] == metrics.ap50
    assert metrics.frames == 20
    assert metrics.ap50 > 0.1


@pytest.mark.parametrize("settings", [{}, {"score_min": 0.6}, {"truth": True}])
def test_the_video_has_all_frames(finished: Path, tmp_path: Path, settings: dict) -> None:
    """From the annotated frames, or drawn anew where the threshold or the truth asks for it."""
    import av

    report = urbandet_ray.make_video(str(finished), str(tmp_path / "v.mp4"), **settings)
    with av.open(str(tmp_path / "v.mp4")) as video:
        assert sum(1 for _ in video.decode(video=0)) == report.frames == 20


def test_a_video_of_two_runs_is_twice_as_wide(finished: Path, drives: Path, tmp_path: Path) -> None:
    """Side by side, one segment only."""
    import av

    other = tmp_path / "other"
    urbandet_ray.infer(str(drives), str(other), model={"score_min": 0.5}, **SETTINGS)
    video = tmp_path / "both.mp4"
    urbandet_ray.make_video(str(finished), str(video), compare=str(other), segment="street-0007")
    with av.open(str(video)) as opened:
        stream = opened.streams.video[0]
        assert (stream.width >= 960, sum(1 for _ in opened.decode(video=0))) == (True, 10)


def test_gpu_actors_give_the_same(finished: Path, drives: Path, tmp_path: Path) -> None:
    """Two actors holding a GPU each (Ray's count of them; the model runs on the CPU), threads
    decoding and drawing beside the model, two shards in flight: the same bytes."""
    run = tmp_path / "run"
    urbandet_ray.infer(str(drives), str(run), coco=True, actors={"gpus": 1}, **SETTINGS)
    assert contents(run) == contents(finished)


def test_a_finished_run_is_left_alone(finished: Path, drives: Path) -> None:
    """Running it again does nothing and says so."""
    before = contents(finished)
    report = urbandet_ray.infer(str(drives), str(finished), coco=True, **SETTINGS)
    assert (report.frames, report.resumed, report.frames_per_s) == (20, True, 0.0)
    assert contents(finished) == before


def test_another_threshold_is_another_run(finished: Path, drives: Path) -> None:
    """Detections of two settings never mix."""
    with pytest.raises(RunError, match="holds a run with another model: choose another output"):
        urbandet_ray.infer(str(drives), str(finished), model={"score_min": 0.2}, **SETTINGS)


def test_a_second_writer_is_refused(drives: Path, tmp_path: Path) -> None:
    """While this process holds the run folder."""
    from urbandet_ray.runs.lock import LOCK_NAME, WriterLock

    run = RunFolder(str(tmp_path / "run"), Storage())
    held = WriterLock(run.storage, run.path(LOCK_NAME), "test")
    with held, pytest.raises(RunError, match="another writer is live"):
        urbandet_ray.infer(str(drives), run.uri, **SETTINGS)


def test_missing_shards_come_back_byte_for_byte(
    finished: Path, drives: Path, tmp_path: Path
) -> None:
    """A run that lost commits at the start, in the middle and at the end."""
    run = tmp_path / "run"
    shutil.copytree(finished, run)
    for shard in ("street-0007-00000004", "street-0012-00000000", "street-0012-00000008"):
        (run / "commit" / f"{shard}.json").unlink()
        (run / "detections" / f"{shard}.parquet").write_bytes(b"half a fi")
    report = urbandet_ray.infer(str(drives), str(run), coco=True, **SETTINGS)
    assert report.resumed
    assert contents(run) == contents(finished)


def damage(folder: Path) -> dict[tuple[str, int], tuple[int, str]]:
    """Spoil three records; what is expected of the dead letters by (file, index)."""
    expected = {}
    for path, index, reason in (
        (folder / "street-0007.tfrecord", 2, "bad-data-crc"),
        (folder / "street-0007.tfrecord", 6, "undecodable-image"),
        (folder / "street-0012.tfrecord", 5, "truncated-record"),
    ):
        data = bytearray(path.read_bytes())
        place = 0
        for _ in range(index):
            place += 16 + struct.unpack_from("<Q", data, place)[0]
        (length,) = struct.unpack_from("<Q", data, place)
        body = slice(place + 12, place + 12 + length)
        if reason == "bad-data-crc":
            data[body.start + 700] ^= 1
        elif reason == "undecodable-image":
            record = bytes(data[body])
            jpeg = record.find(b"\xff\xd8\xff")
            record = record[: jpeg + 2] + bytes(900) + record[jpeg + 902 :]  # its headers
            data[body] = record
            struct.pack_into("<I", data, body.stop, masked_crc(record))
        else:
            del data[body.start + length // 2 : body.stop + 4]
        path.write_bytes(data)
        expected[str(path), index] = (place, reason)
    return expected


def test_damaged_records_become_dead_letters(
    ray_dashboard: str, finished: Path, drives: Path, tmp_path: Path
) -> None:
    """A wrong CRC, a truncated record and an undecodable JPEG cost three frames, not the files."""
    folder = tmp_path / "drives"
    shutil.copytree(drives, folder)
    expected = damage(folder)
    report = urbandet_ray.infer(str(folder), str(tmp_path / "run"), **SETTINGS)
    assert (report.frames, report.dead_letters, report.exit_code) == (17, 3, 3)
    letters = {}
    for path in (tmp_path / "run/dead_letter").glob("*.jsonl"):
        for line in path.read_text().splitlines():
            letter = json.loads(line)
            letters[letter["file"], letter["index"]] = (letter["offset"], letter["reason"])
            assert (path.parent / letter["raw"]).stat().st_size == letter["size_bytes"] > 0
    assert letters == expected
    whole, run = RunFolder(str(finished), Storage()), RunFolder(str(tmp_path / "run"), Storage())
    spoilt = {(Path(file).stem, index) for file, index in expected}
    wanted = {
        (marker.source, row.index): row.detections.scores.tolist()
        for marker in whole.markers()
        for row in whole.rows(marker)
        if (marker.source, row.index) not in spoilt
    }
    got = {
        (marker.source, row.index): row.detections.scores.tolist()
        for marker in run.markers()
        for row in run.rows(marker)
    }
    assert got == wanted
    notes = urbandet_ray.evaluate(str(tmp_path / "run"), str(folder)).notes
    assert any("3 bad records are not in the figures" in note for note in notes)


def test_a_resume_cuts_as_the_run_began(
    finished: Path, drives: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By another version's rule, shards would overlap and frames count twice. A shard whose files
    are gone is done again, and said."""
    run = tmp_path / "run"
    shutil.copytree(finished, run)
    markers = sorted((run / "commit").glob("*.json"))
    for lost in (markers[1], markers[-1]):  # the second shard of one drive, the last of the other
        lost.unlink()
    min(run.glob("frames/*/*.jpg")).write_bytes(b"")  # as after a power cut
    rule = CutRule(7, 1 << 20)
    monkeypatch.setattr("urbandet_ray.commands.infer.fitting_rule", lambda *_: rule)
    report = urbandet_ray.infer(str(drives), str(run), coco=True, **SETTINGS)
    assert (report.frames, report.resumed) == (20, True)
    assert contents(run) == contents(finished)


def test_too_many_bad_records_fail_and_a_higher_limit_resumes(
    ray_dashboard: str, drives: Path, tmp_path: Path
) -> None:
    """Nothing that was done is done again."""
    folder, run = tmp_path / "drives", str(tmp_path / "run")
    shutil.copytree(drives, folder)
    damage(folder)
    with pytest.raises(RunError, match=r"bad records, allowed are 0 \(max_bad_records\)"):
        urbandet_ray.infer(str(folder), run, max_bad_records=0, **SETTINGS)
    report = urbandet_ray.infer(str(folder), run, max_bad_records=3, **SETTINGS)
    assert (report.frames, report.dead_letters, report.resumed) == (17, 3, True)


@pytest.mark.s3
def test_s3_gives_the_same_as_local(finished: Path, drives: Path, s3_server) -> None:
    """Input and output over HTTP: the same detections, frames and markers, and the video."""
    bucket = s3_server.make_bucket("end-to-end")
    store = Storage(s3_server.options)
    for path in sorted(drives.glob("*.tfrecord")):
        store.upload_file(path, f"{bucket}/in/{path.name}")
    access = {"storage": {"endpoint_url": s3_server.endpoint_url, "region": "us-east-1"}}
    urbandet_ray.infer(f"{bucket}/in", f"{bucket}/run", coco=True, **SETTINGS, **access)
    urbandet_ray.make_video(f"{bucket}/run", f"{bucket}/drive.mp4", **access)
    keys = [info.uri for info in store.list_files(f"{bucket}/run")]
    remote = {uri.removeprefix(f"{bucket}/run/"): store.read_bytes(uri) for uri in keys}
    local = contents(finished)
    results = {k: v for k, v in remote.items() if not k.startswith("attempts/")}
    assert results.keys() == local.keys()
    different = [key for key in local if results[key] != local[key]]
    assert different == ["run.json"]  # it names the input
    assert store.info(f"{bucket}/drive.mp4").size_bytes > 10_000


def actors() -> list[int]:
    """Process ids of the actors that are at work on this machine for this test's Ray."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                title = (entry / "cmdline").read_bytes()
            except OSError:
                continue
            if title.startswith(b"ray::MapWorker(MapBatches(PredictorActor)"):
                found.append(int(entry.name))
    return found


@pytest.mark.chaos
def test_a_killed_actor_loses_and_doubles_nothing(
    finished: Path, drives: Path, tmp_path: Path
) -> None:
    """SIGKILL one as soon as it has loaded its model; another takes its shards."""
    killed: list[int] = []
    ended = threading.Event()

    def kill_one() -> None:
        written = tmp_path / "run/frames"
        wait_for(lambda: ended.is_set() or list(written.rglob("*.jpg")), "the first frame")
        for pid in actors()[:1]:
            os.kill(pid, signal.SIGKILL)
            killed.append(pid)

    killer = threading.Thread(target=kill_one)
    killer.start()
    try:
        urbandet_ray.infer(str(drives), str(tmp_path / "run"), coco=True, shard={"frames": 4})
    finally:
        ended.set()
        killer.join()
    assert killed
    assert contents(tmp_path / "run") == contents(finished)


@pytest.mark.chaos
def test_a_killed_driver_resumes_to_the_same_bytes(
    finished: Path, drives: Path, tmp_path: Path
) -> None:
    """kill -9 halfway; the next try takes over at once and does the rest."""
    run = tmp_path / "run"
    command = [sys.executable, "-m", "urbandet_ray.cli", "infer", str(drives), "--out", str(run)]
    command += ["--coco", "--set", "shard.frames=4", "--actors", "1"]
    environment = {k: v for k, v in os.environ.items() if not k.startswith("RAY_")}
    driver = subprocess.Popen(command, env=environment, stderr=subprocess.DEVNULL)
    committed = (run / "commit").glob
    wait_for(lambda: driver.poll() is not None or len(list(committed("*.json"))) >= 2, "2 commits")
    assert driver.poll() is None, "the driver ended before it could be killed"
    driver.send_signal(signal.SIGKILL)
    driver.wait()
    assert 2 <= len(list((run / "commit").glob("*.json"))) < 6
    report = urbandet_ray.infer(str(drives), str(run), coco=True, shard={"frames": 4})
    assert (report.frames, report.resumed) == (20, True)
    assert contents(run) == contents(finished)


def test_a_job_through_ray_job_submit(
    ray_dashboard: str, finished: Path, drives: Path, tmp_path: Path
) -> None:
    """batch_infer as a cluster's users run it; plain lines in the log. The other jobs:
    tests/launch/test_submit.py."""
    repository = Path(urbandet_ray.__file__).parent.parent
    run = tmp_path / "run"

    def submit(*entrypoint: str) -> str:
        ray = str(Path(sys.executable).parent / "ray")
        command = [ray, "job", "submit", "--address", ray_dashboard, "--working-dir"]
        command += [str(repository), "--", sys.executable, *entrypoint]

        def submitted() -> "subprocess.CompletedProcess[str] | None":
            done = subprocess.run(command, capture_output=True, text=True, check=False)
            return None if "No available agent" in done.stderr else done  # it starts late

        done = wait_for(submitted, "the dashboard's agent")
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    log = submit(
        "jobs/batch_infer.py",
        "configs/runs/infer.yaml",
        f"input={drives}",
        f"output={run}",
        "shard.frames=4",
        "coco=true",
    )
    assert f"{run}: 20 frames," in log
    assert "20 frames (100%)" in log
    assert contents(run) == contents(finished)


@pytest.mark.chaos
def test_a_crash_that_repeats_ends_the_run_with_a_message(
    ray_dashboard: str, drives: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A model that takes its process down does not do so for ever."""
    from urbandet_ray.inference import pipeline
    from urbandet_ray.inference.job import InferJob
    from urbandet_ray.inference.shards import CutRule
    from urbandet_ray.labels import STREET_LABELS
    from urbandet_ray.records.sources import list_sources

    class Crashing:
        """Dies as a segmentation fault would."""

        labels = STREET_LABELS
        batch_size = 1

        def detect(self, images: object) -> list:
            os._exit(139)

    monkeypatch.setattr(pipeline, "SHARD_RETRIES", 1)
    config = InferConfig(input=str(drives), output=str(tmp_path / "run"), actors={"min": 1})
    job = InferJob(config, Storage(), Crashing, STREET_LABELS)
    sources = list_sources(str(drives), job.storage)
    with pytest.raises(RunError, match="an actor died 2 times over the same shard"):
        pipeline.run_inference(job, sources, CutRule(4, 1 << 20))
    assert job.folder().markers() == []


def test_an_actor_that_cannot_start_says_why(
    ray_dashboard: str, drives: Path, tmp_path: Path
) -> None:
    """A module that the driver has and the workers have not, above all."""
    from urbandet_ray.inference import pipeline
    from urbandet_ray.inference.job import InferJob
    from urbandet_ray.inference.shards import CutRule
    from urbandet_ray.labels import STREET_LABELS
    from urbandet_ray.records.sources import list_sources

    def make() -> None:
        raise ModuleNotFoundError("No module named 'my_detector'")

    config = InferConfig(input=str(drives), output=str(tmp_path / "run"), actors={"min": 1})
    job = InferJob(config, Storage(), make, STREET_LABELS)
    sources = list_sources(str(drives), job.storage)
    with pytest.raises(RunError, match=r"could not start: .*No module named 'my_detector'.*have t"):
        pipeline.run_inference(job, sources, CutRule(4, 1 << 20))


def test_an_import_in_rays_tasks_writes_the_same_bytes(
    ray_dashboard: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Drives in parallel; a second command resumes, and a fault is one message."""
    from small_sets import write_coco

    from urbandet_ray.commands.import_data import ImportChoice, import_dataset

    write_coco(tmp_path / "set")
    choice = ImportChoice(split="50,50")
    for name, on_ray in (("here", False), ("ray", True)):
        report = import_dataset(
            str(tmp_path / "set"), str(tmp_path / name), choice, Storage(), on_ray=on_ray
        )
        assert report.frames == 6
    here, there = contents(tmp_path / "here"), contents(tmp_path / "ray")
    assert here == there
    marker = next((tmp_path / "ray" / "import").glob("train-*.json"))
    marker.write_text("{}")
    with pytest.raises(RunError, match=r"is damaged: it lacks 'part'.*Repeat the command"):
        import_dataset(str(tmp_path / "set"), str(tmp_path / "ray"), choice, Storage(), on_ray=True)
    marker.unlink()
    import_dataset(str(tmp_path / "set"), str(tmp_path / "ray"), choice, Storage(), on_ray=True)
    assert contents(tmp_path / "ray") == here
