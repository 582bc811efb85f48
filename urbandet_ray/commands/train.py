"""`urbandet train`: from a config to a trained model in its run folder."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from urbandet_ray.config.training_config import TrainConfig
from urbandet_ray.errors import ConfigError, NotFoundError
from urbandet_ray.inference.session import ray_session, starts_its_own
from urbandet_ray.json_files import digest, read_value, to_json
from urbandet_ray.runs.lock import LOCK_NAME, WriterLock
from urbandet_ray.runs.manifest import TrainingManifest, begin_run
from urbandet_ray.storage import Storage, absolute_uri, join_uri
from urbandet_ray.training.checkpoints import BEST, LAST, STATE_NAME
from urbandet_ray.training.doctor.findings import Finding
from urbandet_ray.training.doctor.planned_run import examine_plan
from urbandet_ray.training.plan import DONE_NAME, LABELS_NAME, PIPELINE_NAME, TrainPlan
from urbandet_ray.training.planning import plan_run
from urbandet_ray.training.trainer import run_workers
from urbandet_ray.version import __version__

_SAME_RUN_WITHOUT = {"output", "cache", "doctor", "ray", "storage", "workers", "checkpoint"}
"""Settings that a resume may change: they decide how it is trained, not what."""


@dataclass(frozen=True)
class TrainReport:
    """What a run came to.

    Attributes:
        run: the run folder.
        steps: optimizer steps done; fewer than asked for after an early stop.
        best_step, best_map: the best validation mAP, whose weights are in best/; None where the
            validation frames hold no boxes.
        last_map: mAP at the end.
        resumed: an earlier try was continued.
        exports: `urbandet export` takes it; a model of your own it does not.
    """

    run: str
    steps: int
    best_step: int | None
    best_map: float | None
    last_map: float | None
    resumed: bool
    exports: bool = True

    def to_text(self) -> str:
        """A line or two for a person."""
        best = "no mAP (no labelled validation frame)"
        if self.best_map is not None:
            best = f"best mAP {self.best_map:.3f} at step {self.best_step}"
        text = f"{self.run}: {self.steps} steps, {best}"
        text += " (an earlier try was resumed)" if self.resumed else ""
        return f"{text}\nexport it: urbandet export {self.run}" if self.exports else text


def train(
    config: TrainConfig,
    *,
    on_notice: Callable[[dict[str, Any]], None] = lambda _: None,
    on_findings: Callable[[tuple[Finding, ...]], None] = lambda _: None,
) -> TrainReport:
    """Train, with the best weights in best/ of the run folder; resumes an unfinished run.

    Args:
        on_notice: gets {"kind": "plan"}, {"kind": "start"} and the entries of metrics.jsonl.
        on_findings: gets what the doctor says of the pipeline.config, before anything starts.

    Raises:
        UrbandetError: what is wrong, and what to do.
    """
    config = _with_absolute_places(config)
    storage = Storage(config.storage)
    plan = plan_run(config, storage)
    findings = examine_plan(plan)
    on_findings(findings)
    _refuse_errors(findings, config)
    with WriterLock(storage, plan.path(LOCK_NAME), "urbandet train") as lock:
        resumed = begin_run(_manifest(plan), plan.run_uri, storage)
        if _read_file(DONE_NAME, plan):
            return _report(plan, resumed=True)
        _write_settings(plan, findings, storage)
        data = plan.data.to_text() if plan.data else None
        images = plan.images_a_step(config.workers.count)
        on_notice({"kind": "plan", "steps": plan.steps, "images": images, "data": data})

        def watch(notice: dict[str, Any]) -> None:
            lock.check()
            on_notice(notice)

        grows = not starts_its_own(config.ray)
        with ray_session(config.ray):
            run_workers(plan, watch, grows=grows)
        report = _report(plan, resumed)
        storage.write_bytes(plan.path(DONE_NAME), to_json(vars(report)))
    return report


def _with_absolute_places(config: TrainConfig) -> TrainConfig:
    """Local paths as every process of this machine sees them."""
    fixed = {
        name: absolute_uri(value)
        for name in ("output", "data", "labels", "cache")
        if (value := getattr(config, name)) is not None
    }
    fine_tune = config.fine_tune
    if fine_tune.checkpoint and "/" in fine_tune.checkpoint:
        fine_tune = fine_tune.model_copy(update={"checkpoint": absolute_uri(fine_tune.checkpoint)})
    return config.model_copy(update={**fixed, "fine_tune": fine_tune})


def _refuse_errors(findings: tuple[Finding, ...], config: TrainConfig) -> None:
    errors = [one for one in findings if one.severity == "error"]
    if not errors or config.doctor == "ignore":
        return
    lines = "\n".join(f"  {one.place}: {one.what}\n    -> {one.fix}" for one in errors)
    raise ConfigError(
        f"the doctor found {len(errors)} errors in {config.pipeline}; nothing was started:\n"
        f"{lines}\n`urbandet doctor {config.pipeline} --fix OUT` mends what can be mended; "
        "doctor=ignore (--ignore-doctor) trains as it is"
    )


def _manifest(plan: TrainPlan) -> TrainingManifest:
    """run.json: what is trained, and fingerprints that a resume must share."""
    settings = plan.config.model_dump(mode="json", exclude=_SAME_RUN_WITHOUT)
    data = [(one.uri, one.version) for one in (*plan.train, *plan.val)]
    return TrainingManifest(
        version=__version__,
        labels=plan.labels,
        steps=plan.steps,
        settings=settings,
        fingerprint={
            "settings": _digest(settings),
            "pipeline.config": _digest(plan.pipeline and plan.pipeline.to_text()),
            "records": _digest(data),
            "labels": _digest([*plan.labels.names.items(), *plan.labels.other_names.items()]),
        },
    )


def _digest(value: object) -> str:
    return digest(value)[:32]


def _write_settings(plan: TrainPlan, findings: tuple[Finding, ...], storage: Storage) -> None:
    if plan.pipeline is not None:
        storage.write_bytes(plan.path(PIPELINE_NAME), plan.pipeline.to_text().encode())
    storage.write_bytes(plan.path(LABELS_NAME), plan.labels.to_pbtxt().encode())
    storage.write_bytes(plan.path("config.json"), to_json(plan.config.model_dump(mode="json")))
    storage.write_bytes(plan.path("doctor.json"), to_json([one.to_dict() for one in findings]))


def _report(plan: TrainPlan, resumed: bool) -> TrainReport:
    last = _read_file(join_uri(LAST, STATE_NAME), plan)
    best = _read_file(join_uri(BEST, STATE_NAME), plan)
    return TrainReport(
        run=plan.run_uri,
        steps=int(last.get("step", 0)),
        best_step=best.get("step"),
        best_map=best.get("mAP"),
        last_map=last.get("mAP"),
        resumed=resumed,
        exports=plan.pipeline is not None,
    )


def _read_file(name: str, plan: TrainPlan) -> dict[str, Any]:
    """A JSON file of the run folder; {} where there is none yet."""
    try:
        remedy = "Delete it and repeat the command, which writes it anew"
        return read_value(plan.path(name), plan.storage, dict[str, Any], remedy)
    except NotFoundError:
        return {}
