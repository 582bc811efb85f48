"""`urbandet models`: what the zoo has, one model of it, and its files on this machine."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

from urbandet_ray.labels import STREET_LABELS
from urbandet_ray.models.zoo import (
    FetchedModel,
    ZooModel,
    cached_model,
    fetch_model,
    model_config_path,
    zoo_folder,
    zoo_model,
    zoo_models,
)
from urbandet_ray.storage import Storage
from urbandet_ray.storage.download import Progress
from urbandet_ray.tables import text_table

_MB = 1_000_000
_LINE_EVERY_S = 2.0


def list_models() -> str:
    """The zoo as a table; a star marks what is on this machine already."""
    heads = ("name", "input", "mAP", "ms", "config in configs/models")
    rows = [heads] + [
        (
            model.name + (" *" if (zoo_folder() / model.name).is_dir() else ""),
            model.input_size,
            f"{model.coco_map:.1f}",
            str(model.speed_ms),
            model.config or "-",
        )
        for model in zoo_models()
    ]
    note = (
        "mAP of boxes on COCO 2017 and speed are the zoo's own figures, archive sizes it does not "
        "publish; * is fetched already"
    )
    return f"{text_table(rows, 'lrrrl')}\n\n{note}"


def show_model(name: str) -> str:
    """Everything about one model: the zoo's figures, our config with its reasons, the classes.

    Raises:
        ConfigError: no such model.
    """
    model = zoo_model(name)
    masks = f", masks {model.mask_map:.1f}" if model.mask_map else ""
    have = cached_model(model, zoo_folder())
    lines = [
        model.name,
        f"  {model.title}, {model.input_size}: COCO mAP {model.coco_map:.1f}{masks}, "
        f"{model.speed_ms} ms (the zoo's figures)",
        f"  archive      {model.url}",
        f"  on this disk {have.folder if have else 'no: urbandet models fetch ' + model.name}",
        "  its classes  the 90 ids of COCO",
    ]
    if model.config is None:
        return "\n".join([*lines, "  config       none of ours: the archive's own pipeline.config"])
    path = model_config_path(model.config)
    classes = ", ".join(f"{key} {label}" for key, label in STREET_LABELS.names.items())
    lines += [f"  config       {path}", f"  ours         {classes}", ""]
    return "\n".join([*lines, *(f"  {line}" for line in _header(path))])


def fetch(
    name: str,
    source: str | None,
    cache: Path | None,
    sha256: str | None,
    storage: Storage,
    say: Callable[[str], None],
) -> FetchedModel:
    """Fetch one model and say where its files are; `fetch_model` has the contract."""
    model = zoo_model(name)
    found = fetch_model(
        model, storage, _lines(model, say), source=source, folder=cache, sha256=sha256
    )
    say(f"pipeline.config  {found.pipeline_config}")
    say(f"checkpoint       {found.checkpoint}")
    say(f"sha256           {_trust(found)}")
    if model.config:
        say(f"our config       {model_config_path(model.config)}")
    say("in train_config:")
    say(f'  fine_tune_checkpoint: "{found.checkpoint}"')
    return found


def _trust(found: FetchedModel) -> str:
    if found.sha256 is None:
        return "none: it was given as an unpacked folder"
    if found.first_seen:
        return (
            f"{found.sha256} (trusted at first sight: the zoo publishes none to compare with; "
            "later downloads must have the same)"
        )
    return found.sha256


def _lines(model: ZooModel, say: Callable[[str], None]) -> Progress:
    """A line every two seconds, and one at the end."""
    last = time.monotonic()

    def on_progress(done: int, total: int | None) -> None:
        nonlocal last
        now = time.monotonic()
        if now - last < _LINE_EVERY_S and done != total:
            return
        last = now
        whole = f" of {total / _MB:.1f} MB ({done / max(total, 1):.0%})" if total else " MB"
        say(f"{model.name}: {done / _MB:.1f}{whole}")

    return on_progress


def _header(path: Path) -> list[str]:
    """The comment a config opens with."""
    lines: list[str] = []
    for line in path.read_text("utf-8").splitlines():
        if not line.startswith("#"):
            break
        lines.append(line.removeprefix("#").strip())
    return lines
