"""A cluster that loses nodes and grows: real Ray nodes, `ray job submit`, S3 over HTTP.

    python bench/elastic.py infer      # batch inference, evaluation, video; a node is killed
    python bench/elastic.py train      # two workers on two nodes; a node is killed
    python bench/elastic.py scale      # 1 -> 4 -> 1 fake-GPU workers by backlog, and by command
    python bench/elastic.py            # all, about 15 minutes on 2 cores

infer and train run twice, undisturbed and with a worker node SIGKILLed in the middle, and compare
what is left: the same bytes of detections; every step once. In scale the accelerator only waits
(bench/elastic_job.py), so frames/s follow the actors on any number of cores. Results go to
bench/results/elastic.json and docs/elastic.png.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))
from elastic_clusters import (
    REPOSITORY,
    Cluster,
    environment,
    finish,
    fixed_cluster,
    growing_cluster,
    s3_server,
    submit,
    wait_for,
    wait_for_agent,
)
from elastic_job import SHARD_FRAMES

from urbandet_ray.runs.run_folder import RunFolder
from urbandet_ray.storage import Storage

DRIVES, DRIVE_FRAMES, INFER_SHARD = 4, 24, 4
STEPS, CHECKPOINT_EVERY = 20, 4
BACKLOG_FILES, BACKLOG_FRAMES, TRICKLE_FILES = 6, 640, 48
SHARDS_ALONE = 30
IDLE_S = 20.0

Report = dict[str, Any]


def put_drives(bucket: str, folder: Path) -> None:
    """Synthetic street drives on S3: to infer on, to train on, and to be judged by."""
    from urbandet_ray.streets import write_drives

    write_drives(folder, seeds=range(DRIVES), frame_count=DRIVE_FRAMES, size_wh=(320, 240))
    storage = Storage()
    for number, path in enumerate(sorted(folder.glob("*.tfrecord"))):
        storage.upload_file(path, f"{bucket}/drives/{path.name}")
        part = "val" if number == 0 else "train"
        storage.upload_file(path, f"{bucket}/data/{part}/{path.name}")
    storage.upload_file(folder / "label_map.pbtxt", f"{bucket}/data/label_map.pbtxt")
    shipped = (REPOSITORY / "urbandet_ray/models/shipped/pipeline.config").read_text()
    config = shipped.replace("num_classes: 3", "num_classes: 4")  # the drives' ids are 1, 2 and 4
    storage.write_bytes(f"{bucket}/data/pipeline.config", config.encode())


def infer_words(bucket: str, run: str) -> list[str]:
    """The job's command."""
    return [
        "python",
        "jobs/batch_infer.py",
        "configs/runs/infer.yaml",
        f"input={bucket}/drives",
        f"output={run}",
        f"shard.frames={INFER_SHARD}",
        "actors.min=2",
    ]


def results(run: str) -> dict[str, bytes]:
    """Detections, annotated frames and markers of a run, by name."""
    storage = Storage()
    kept = ("detections", "frames", "commit")
    found = [info.uri for part in kept for info in storage.list_files(f"{run}/{part}")]
    return {uri.removeprefix(run): storage.read_bytes(uri) for uri in found}


def disturb(cluster: Cluster, ready: Callable[[], Any], told: Report) -> None:
    """Kill a worker node once `ready`, and bring another, as an autoscaler would."""
    wait_for(ready, 240, "the moment to kill a node")
    told["killed"] = cluster.kill_node()
    print(f"killed node {told['killed'][:12]}", flush=True)
    cluster.add_node(1)


def infer_case(cluster: Cluster, bucket: str) -> Report:
    """Inference with and without a lost node, then evaluation and video of the disturbed one."""
    calm, hurt = f"{bucket}/runs/calm", f"{bucket}/runs/hurt"
    told: Report = {}
    begun = time.time()
    finish(submit(cluster, *infer_words(bucket, calm), wait=False))
    told["calm_s"] = time.time() - begun
    folder = RunFolder(hurt, Storage())
    begun = time.time()
    job = submit(cluster, *infer_words(bucket, hurt), wait=False)
    disturb(cluster, lambda: len(folder.markers()) >= 4, told)
    told["shards_at_kill"] = len(folder.markers())
    finish(job)
    told["hurt_s"] = time.time() - begun
    first, second = results(calm), results(hurt)
    told |= {
        "frames": sum(marker.frames for marker in folder.markers()),
        "files": len(first),
        "same_names": first.keys() == second.keys(),
        "different": sorted(name for name in first if first[name] != second.get(name)),
        "shards": len(folder.markers()),
    }
    submit(
        cluster, "python", "jobs/evaluate.py", "configs/runs/eval.yaml", f"run={hurt}",
        f"truth={bucket}/drives",
    )  # fmt: skip
    submit(
        cluster, "python", "jobs/make_video.py", "configs/runs/video.yaml", f"run={hurt}",
        f"output={hurt}/drive.mp4",
    )  # fmt: skip
    told["video_bytes"] = Storage().info(f"{hurt}/drive.mp4").size_bytes
    lost_in_time = told["shards_at_kill"] < told["shards"]
    told["passed"] = told["same_names"] and not told["different"] and lost_in_time
    return told


def train_words(bucket: str, run: str, cache: str) -> list[str]:
    """The job's command: the shipped street config, few steps."""
    return [
        "python",
        "jobs/train.py",
        "configs/runs/train-street.yaml",
        f"data={bucket}/data",
        f"pipeline={bucket}/data/pipeline.config",
        f"output={run}",
        f"steps={STEPS}",
        f"checkpoint.every={CHECKPOINT_EVERY}",
        f"evaluation.every={STEPS}",
        "evaluation.frames=4",
        "batch.per_worker=2",
        "workers.count=2",
        "workers.cpus=1",
        "doctor=ignore",
        f"cache={cache}",
    ]


def step_reached(run: str) -> int:
    """Step of the last checkpoint; 0 before the first."""
    storage, uri = Storage(), f"{run}/last/state.json"
    return int(json.loads(storage.read_bytes(uri))["step"]) if storage.exists(uri) else 0


def _late_enough(run: str) -> bool:
    return step_reached(run) >= 2 * CHECKPOINT_EVERY


def train_case(cluster: Cluster, bucket: str, folder: Path) -> Report:
    """Training with and without a lost node."""
    from urbandet_ray.training.board import read_lines

    told: Report = {}
    for name in ("calm", "hurt"):
        run = f"{bucket}/runs/train-{name}"
        begun = time.time()
        job = submit(cluster, *train_words(bucket, run, str(folder / "cache")), wait=False)
        if name == "hurt":
            disturb(cluster, partial(_late_enough, run), told)
            told["step_at_kill"] = step_reached(run)
        finish(job)
        entries = read_lines(Storage().read_bytes(f"{run}/metrics.jsonl").decode())
        told[f"{name}_s"] = time.time() - begun
        told[f"{name}_steps"] = [one["step"] for one in entries if one["kind"] == "steps"]
        told[f"{name}_evaluations"] = [
            one["step"] for one in entries if one["kind"] == "evaluation"
        ]
        told[f"{name}_loss"] = [one["total"] for one in entries if one["kind"] == "steps"][-1]
        told[f"{name}_reached"] = step_reached(run)
    steps = told["hurt_steps"]
    told["passed"] = (
        steps == sorted(set(steps))
        and told["step_at_kill"] < STEPS
        and told["hurt_reached"] == told["calm_reached"] == STEPS
        and told["hurt_evaluations"] == told["calm_evaluations"]
    )
    return told


def put_backlog(folder: Path) -> None:
    """Files that pile up, and many that trickle."""
    sys.path.insert(0, str(REPOSITORY / "tests"))
    from drives import write_drive

    for number in range(BACKLOG_FILES):
        write_drive(folder / f"backlog-{number}.tfrecord", BACKLOG_FRAMES)
    for number in range(TRICKLE_FILES):
        write_drive(folder / f"trickle-{number:03d}.tfrecord", SHARD_FRAMES)


def scale_case(by: str) -> Report:
    """One inference on a cluster whose autoscaler makes its nodes.

    Args:
        by: "backlog" leaves it to the run. With "command" the run asks for nothing: `urbandet
            scale` has one worker up before it, asks for four in its middle, and for one again when
            the backlog is gone.
    """
    told: Report = {"by": by, "nodes": []}
    with (
        tempfile.TemporaryDirectory(prefix="elastic-") as scratch,
        growing_cluster(4, IDLE_S) as cluster,
    ):
        folder = Path(scratch)
        put_backlog(folder / "records")
        wait_for_agent(cluster)
        stop = threading.Event()
        watcher = threading.Thread(
            target=watch_nodes, args=(cluster, told["nodes"], stop), daemon=True
        )
        watcher.start()
        if by == "command":
            scale(cluster, "--gpu-workers", "1", "--wait")
        timeline = folder / "timeline.json"
        script = str(REPOSITORY / "bench/elastic_job.py")
        words = [by, str(folder / "records"), str(folder / "run"), str(timeline)]
        job = submit(cluster, "python", script, *words, wait=False, send=False)
        if by == "command":
            commits = folder / "run" / "commit"
            wait_for_shards(commits, SHARDS_ALONE)
            scale(cluster, "--gpu-workers", "4")
            wait_for_shards(commits, BACKLOG_FILES * BACKLOG_FRAMES // SHARD_FRAMES)
            scale(cluster, "--gpu-workers", "1")
        finish(job)
        stop.set()
        watcher.join()
        told |= json.loads(timeline.read_text())
    told["pace"] = pace_over_time(told)
    told["actors"] = actors_over_time(told)
    counts = [count for _, count in told["actors"]]
    told["actor_counts"] = first_most_last(counts)
    during = [count for at, count in told["nodes"] if told["begun"] <= at <= told["ended"]]
    told["node_counts"] = first_most_last(during)
    told["passed"] = told["actor_counts"] == told["node_counts"] == [1, 4, 1]
    return told


def first_most_last(counts: list[int]) -> list[int]:
    """Where it began, its peak, and the least after that; none is a pause."""
    counts = [count for count in counts if count]
    peak = counts.index(max(counts))
    return [counts[0], counts[peak], min(counts[peak:])]


def wait_for_shards(commits: Path, count: int) -> None:
    """Until so many shards of the backlog are done."""
    done = partial(commits.glob, "backlog-*.json")
    wait_for(lambda: len(list(done())) >= count, 400, f"shard {count} of the backlog", every_s=1)


def actors_over_time(told: Report, window_s: float = 10.0) -> list[tuple[float, int]]:
    """(seconds since the start, most actors at work at a time in the window around then)."""
    spans = [(one[0] - told["begun"], one[1] - told["begun"]) for one in told["shards"]]
    begin, end = min(span[0] for span in spans), max(span[1] for span in spans)
    points, at = [], begin + window_s / 2
    while at + window_s / 2 <= end:
        moments = [at - window_s / 2 + step * window_s / 100 for step in range(100)]
        points.append((at, max(sum(a <= now < b for a, b in spans) for now in moments)))
        at += window_s
    return points


def scale(cluster: Cluster, *words: str) -> None:
    """`urbandet scale`, by the dashboard's address."""
    command = [sys.executable, "-m", "urbandet_ray.cli", "scale", "--address", cluster.dashboard]
    done = subprocess.run(
        [*command, *words], check=False, text=True, capture_output=True, cwd=REPOSITORY
    )
    print(done.stdout, done.stderr, flush=True)
    if done.returncode != 0:
        raise RuntimeError(f"urbandet scale {' '.join(words)} ended with {done.returncode}")


def watch_nodes(cluster: Cluster, into: list[tuple[float, int]], stop: threading.Event) -> None:
    """GPU nodes that are up, twice a second, asked of the GCS."""
    from ray._raylet import GcsClient

    client = GcsClient(address=cluster.address)
    while not stop.wait(0.5):
        alive = [one for one in client.get_all_node_info().values() if one.state == 0]
        into.append((time.time(), sum(one.resources_total.get("GPU", 0) > 0 for one in alive)))


def pace_over_time(told: Report, window_s: float = 5.0) -> list[tuple[float, float]]:
    """(seconds since the start, frames/s over the window before)."""
    begun, points = told["begun"], []
    for second in range(1, int(told["ended"] - begun) + 1):
        at = begun + second
        done = sum(frames for _, ended, frames, _ in told["shards"] if at - window_s < ended <= at)
        points.append((float(second), done / min(window_s, second)))
    return points


def draw(cases: list[Report], path: Path) -> None:
    """Nodes and frames/s over time, a row a case."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, rows = pyplot.subplots(
        len(cases), 1, figsize=(8, 3.2 * len(cases)), squeeze=False, layout="constrained"
    )
    for row, case in zip(rows[:, 0], cases, strict=True):
        seconds, pace = zip(*case["pace"], strict=True)
        row.plot(seconds, pace, color="tab:blue", label="frames/s (mean of 5 s)")
        row.set(title=f"by {case['by']}", xlabel="seconds", ylabel="frames/s")
        nodes = row.twinx()
        times = [at - case["begun"] for at, _ in case["nodes"]]
        nodes.step(times, [count for _, count in case["nodes"]], color="tab:orange", where="post")
        seconds_a, actors = zip(*case["actors"], strict=True)
        nodes.plot(seconds_a, actors, color="tab:green", marker=".", linestyle=":")
        nodes.set(
            ylabel="GPU workers up; actors at work (dots)",
            ylim=(0, 5),
            xlim=(min(0, *times), seconds[-1]),
        )
        nodes.yaxis.label.set_color("tab:orange")
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110)


def report(name: str, case: Report) -> str:
    """A line."""
    verdict = "passed" if case["passed"] else "FAILED"
    if name.startswith("scale"):
        actors, nodes = (" -> ".join(map(str, case[f"{of}_counts"])) for of in ("actor", "node"))
        told = f"{actors} actors, {nodes} workers, {case['frames']} frames, "
        return f"{name}: {verdict}, {told}at most {max(p for _, p in case['pace']):.0f} frames/s"
    times = f"{case['calm_s']:.0f} s undisturbed, {case['hurt_s']:.0f} s with a node lost"
    return f"{name}: {verdict}, {times}"


def main() -> None:
    """Parse, run the cases, write what came of them."""
    as_written = argparse.RawTextHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=as_written)
    names = ["infer", "train", "backlog", "command"]
    parser.add_argument("cases", nargs="*", help="infer, train, scale (backlog and command)")
    parser.add_argument("--json", type=Path, default=Path("bench/results/elastic.json"))
    parser.add_argument("--png", type=Path, default=Path("docs/elastic.png"))
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # clusters end with this process
    wanted = {"backlog", "command"} if "scale" in options.cases else set()
    wanted |= set(options.cases or names) - {"scale"}
    kept = json.loads(options.json.read_text()) if options.json.exists() else {}
    cases: dict[str, Report] = dict(kept.get("cases", {}))
    for name in [one for one in names if one in wanted]:
        with environment():
            cases[name] = scale_case(name) if name in ("backlog", "command") else on_s3(name)
        print(report("scale by " + name if "by" in cases[name] else name, cases[name]), flush=True)
        options.json.parent.mkdir(parents=True, exist_ok=True)
        text = json.dumps({"cores": os.cpu_count(), "cases": cases})
        options.json.write_text(text + "\n")
    scaled = [cases[name] for name in ("backlog", "command") if name in cases]
    if scaled:
        draw(scaled, options.png)
    sys.exit(not all(cases[name]["passed"] for name in wanted))


def on_s3(name: str) -> Report:
    """A case on a head and two worker nodes."""
    with (
        tempfile.TemporaryDirectory(prefix="elastic-") as scratch,
        s3_server() as bucket,
        fixed_cluster(2, 1) as cluster,
    ):
        put_drives(bucket, Path(scratch) / "drives")
        wait_for_agent(cluster)
        if name == "infer":
            return infer_case(cluster, bucket)
        return train_case(cluster, bucket, Path(scratch))


if __name__ == "__main__":
    main()
