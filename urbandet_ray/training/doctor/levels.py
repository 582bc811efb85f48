"""Are anchors laid on the maps that the network makes, level for level."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from urbandet_ray.training.doctor.case import Case, at, setting
from urbandet_ray.training.doctor.extractors import blocks_of, registry
from urbandet_ray.training.doctor.findings import Edit, Finding
from urbandet_ray.training.doctor.geometry import ANCHOR_FIELDS

_ONE_MAP = "a network without a feature pyramid gives one"


def check_levels(case: Case) -> Iterator[Finding]:
    """The anchor generator's levels against those of the extractor."""
    extractors = registry(case.kind)
    if case.kind not in ANCHOR_FIELDS or case.extractor not in extractors:
        return
    base = f"model.{case.kind}.{ANCHOR_FIELDS[case.kind]}"
    branch = at(case.config, base).WhichOneof("anchor_generator_oneof")
    if branch is None:
        yield case.finding(
            "error",
            "anchor-levels",
            base,
            "no anchor generator is set: the model can't be built",
            "take the block of a working config of this extractor",
        )
        return
    generator = getattr(at(case.config, base), branch)
    blocks = blocks_of(case, extractors[case.extractor])
    if blocks and branch == "multiscale_anchor_generator":
        yield from _same_range(case, f"{base}.{branch}", generator, blocks[0])
        return
    maps, why = _maps(case, blocks)
    laid = _laid(branch, generator)
    if laid in (None, maps):
        return
    yield case.finding(
        "error",
        "anchor-levels",
        f"{base}.{branch}",
        f"{branch} lays anchors on {laid} maps, {why}: the model can't be built",
        _advice(case, branch, maps),
        _edit(f"{base}.{branch}", branch, generator, maps),
    )


def _same_range(case: Case, place: str, generator: Any, block: str) -> Iterator[Finding]:
    pyramid = getattr(case.model.feature_extractor, block)
    got = int(generator.min_level), int(generator.max_level)
    wanted = int(pyramid.min_level), int(pyramid.max_level)
    if got == wanted:
        return

    def edit(config: Any) -> None:
        at(config, place).min_level, at(config, place).max_level = wanted

    yield case.finding(
        "error",
        "anchor-levels",
        f"{place}.min_level",
        f"anchors are laid on levels {got[0]} to {got[1]}, the {block} gives levels "
        f"{wanted[0]} to {wanted[1]}: anchors and predictions do not match up",
        f"min_level: {wanted[0]}, max_level: {wanted[1]}",
        edit,
    )


def _maps(case: Case, blocks: list[str]) -> tuple[int, str]:
    """How many maps the extractor makes, and the sentence that says so."""
    extractor = case.model.feature_extractor
    if blocks:
        pyramid = getattr(extractor, blocks[0])
        count = int(pyramid.max_level) - int(pyramid.min_level) + 1
        return count, f"the {blocks[0]} gives {count}"
    if case.kind == "faster_rcnn":
        return 1, _ONE_MAP
    count = int(extractor.num_layers)
    return count, f"{case.extractor} gives {count} (feature_extractor.num_layers)"


def _laid(branch: str, generator: Any) -> int | None:
    """On how many maps a generator lays anchors; None where that is not known here."""
    if branch == "multiscale_anchor_generator":
        return int(generator.max_level) - int(generator.min_level) + 1
    if branch == "ssd_anchor_generator":
        return int(generator.num_layers)
    return 1 if branch == "grid_anchor_generator" else len(generator.anchor_grid)


def _advice(case: Case, branch: str, maps: int) -> str:
    if branch == "ssd_anchor_generator":
        return f"num_layers: {maps}"
    if case.kind == "faster_rcnn" and maps == 1:
        return "a grid_anchor_generator, or an extractor with an fpn (faster_rcnn_..._fpn_keras)"
    return "a multiscale_anchor_generator with the pyramid's levels" if maps > 1 else "one map"


def _edit(place: str, branch: str, generator: Any, maps: int) -> Edit | None:
    if branch != "ssd_anchor_generator" or generator.scales or generator.height_stride:
        return None  # scales and strides are listed map by map: nobody can guess the new ones
    return setting(f"{place}.num_layers", maps)
