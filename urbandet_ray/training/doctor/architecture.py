"""Does the model in the file exist: extractor, feature pyramid, resizer, box coder."""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Mapping
from difflib import get_close_matches
from typing import Any

from urbandet_ray.models.odapi import open_odapi
from urbandet_ray.training.doctor.case import Case, at, setting
from urbandet_ray.training.doctor.findings import Finding

_REGISTRIES = {
    "ssd": "SSD_KERAS_FEATURE_EXTRACTOR_CLASS_MAP",
    "faster_rcnn": "FASTER_RCNN_KERAS_FEATURE_EXTRACTOR_CLASS_MAP",
    "center_net": "CENTER_NET_EXTRACTOR_FUNCTION_MAP",
}
_EFFICIENTDET = {(3, 64): 0, (4, 88): 1, (5, 112): 2, (6, 160): 3, (7, 224): 4, (7, 288): 5}
_EFFICIENTDET |= {(8, 384): 6}
"""BiFPN iterations and filters of EfficientDet D0 to D6 (arXiv 1911.09070, table 1)."""
_BLOCKS = {"fpn": "fpn_min_level", "bifpn": "bifpn_min_level"}
_CODER = ("y_scale", "x_scale", "height_scale", "width_scale")
_CODER_FPN, _CODER_BIFPN = (10.0, 10.0, 5.0, 5.0), (1.0, 1.0, 1.0, 1.0)
_CODER_FACTOR = 2.0


def registry(kind: str) -> Mapping[str, Any]:
    """Feature extractors the OD API builds for a meta-architecture, by name."""
    name = _REGISTRIES.get(kind)
    return getattr(open_odapi().model_builder, name) if name else {}


def check_architecture(case: Case) -> Iterator[Finding]:
    """Feature extractor, fpn or bifpn block, levels, box coder, bfloat16."""
    if case.model is None:
        yield case.finding(
            "error",
            "no-model",
            "model",
            "the file describes no model",
            "start from a complete pipeline.config",
        )
        return
    extractors = registry(case.kind)
    if extractors and case.extractor not in extractors:
        yield _unknown_extractor(case, extractors)
    elif case.kind in ("ssd", "faster_rcnn"):
        yield from _check_pyramid(case, extractors[case.extractor])
    yield from _check_levels(case)
    yield from _check_multiple(case)
    yield from _check_coder(case)
    if case.config.train_config.use_bfloat16:
        place = "train_config.use_bfloat16"
        yield case.finding(
            "note",
            "bfloat16-without-effect",
            place,
            "the OD API computes in bfloat16 on TPUs only and sets this back on a CPU or GPU: "
            "nothing gets faster or smaller",
            "use_bfloat16: false",
            setting(place, False),
        )


def offered_extractor(case: Case, extractors: Mapping[str, Any]) -> str:
    """The extractor most likely meant: it takes the file's pyramid block, then by name."""
    block = _block_of(case)
    fitting = [name for name, one in extractors.items() if not block or _takes(one, block)]
    if block == "bifpn":
        bifpn = case.model.feature_extractor.bifpn
        size = _EFFICIENTDET.get((bifpn.num_iterations, bifpn.num_filters))
        same = [name for name in fitting if f"-b{size}_" in name]
        if size is not None and same:
            return same[0]
    fitting = fitting or list(extractors)
    return get_close_matches(case.extractor, fitting, n=1, cutoff=0.0)[0]


def _unknown_extractor(case: Case, extractors: Mapping[str, Any]) -> Finding:
    place = f"model.{case.kind}.feature_extractor.type"
    offered, block = offered_extractor(case, extractors), _block_of(case)
    elsewhere = [kind for kind in _REGISTRIES if case.extractor in registry(kind)]
    also = f" (it belongs under {elsewhere[0]})" if elsewhere else ""
    why = f", the one for the file's {block} block" if block else ", the nearest name"
    return case.finding(
        "error",
        "unknown-feature-extractor",
        place,
        f"{case.kind} has no feature extractor {case.extractor!r} in TF2{also}: the model can't "
        f"be built; it has {', '.join(sorted(extractors))}",
        f'type: "{offered}"{why}',
        setting(place, offered),
    )


def _block_of(case: Case) -> str:
    extractor = case.model.feature_extractor
    present = [
        name
        for name in _BLOCKS
        if name in extractor.DESCRIPTOR.fields_by_name and extractor.HasField(name)
    ]
    return present[0] if present else ""


def _takes(extractor: Any, block: str) -> bool:
    return _BLOCKS[block] in inspect.signature(extractor).parameters


def _check_pyramid(case: Case, extractor: Any) -> Iterator[Finding]:
    base = f"model.{case.kind}.feature_extractor"
    fields = case.model.feature_extractor.DESCRIPTOR.fields_by_name
    wanted = [name for name in _BLOCKS if name in fields and _takes(extractor, name)]
    for block in _BLOCKS:
        if block not in fields or not case.model.feature_extractor.HasField(block):
            continue
        if block in wanted:
            continue
        old = getattr(case.model.feature_extractor, block)
        low, high = old.min_level, old.max_level

        def edit(config: Any, block: str = block, low: int = low, high: int = high) -> None:
            feature_extractor = at(config, base)
            feature_extractor.ClearField(block)
            for other in wanted:
                if not feature_extractor.HasField(other):
                    getattr(feature_extractor, other).min_level = low
                    getattr(feature_extractor, other).max_level = high

        put = f" and put {wanted[0]} {{ min_level: {low} max_level: {high} }}" if wanted else ""
        yield case.finding(
            "error",
            "wrong-pyramid-block",
            f"{base}.{block}",
            f"{case.extractor} takes {' or '.join(wanted) or 'no'} block, not {block}: building "
            "the model ends with a TypeError",
            f"remove {block}{put}",
            edit,
        )


def _check_levels(case: Case) -> Iterator[Finding]:
    if case.kind != "ssd" or not _block_of(case):
        return
    if not case.model.anchor_generator.HasField("multiscale_anchor_generator"):
        return
    anchors = case.model.anchor_generator.multiscale_anchor_generator
    pyramid = getattr(case.model.feature_extractor, _block_of(case))
    got, wanted = (
        (anchors.min_level, anchors.max_level),
        (pyramid.min_level, pyramid.max_level),
    )
    if got == wanted:
        return
    place = "model.ssd.anchor_generator.multiscale_anchor_generator"

    def edit(config: Any) -> None:
        at(config, place).min_level, at(config, place).max_level = wanted

    yield case.finding(
        "error",
        "anchor-levels",
        f"{place}.min_level",
        f"anchors are laid on levels {got[0]} to {got[1]}, the {_block_of(case)} gives levels "
        f"{wanted[0]} to {wanted[1]}: anchors and predictions do not match up",
        f"min_level: {wanted[0]}, max_level: {wanted[1]}",
        edit,
    )


def _check_multiple(case: Case) -> Iterator[Finding]:
    """A BiFPN doubles its coarsest map level by level; each must come out as the finer one."""
    size, name = case.input_size_wh(), case.resizer()[0]
    if size is None or case.kind != "ssd" or _block_of(case) != "bifpn":
        return
    step = 2 ** int(case.model.feature_extractor.bifpn.max_level)
    if all(side % step == 0 for side in size):
        return
    near = " x ".join(str(max(step, round(side / step) * step)) for side in size)
    yield case.finding(
        "error",
        "input-not-divisible",
        f"model.ssd.image_resizer.{name}",
        f"the input of {size[0]} x {size[1]} px is no multiple of {step}, the stride of the "
        "bifpn's top level: its maps don't fit together and the first step ends with a ValueError",
        f"an input of {near}",
    )


def _check_coder(case: Case) -> Iterator[Finding]:
    if case.kind != "ssd" or not case.model.box_coder.HasField("faster_rcnn_box_coder"):
        return
    place = "model.ssd.box_coder.faster_rcnn_box_coder"
    coder = case.model.box_coder.faster_rcnn_box_coder
    got = tuple(float(getattr(coder, name)) for name in _CODER)
    extractors = registry("ssd")
    name = case.extractor
    if name not in extractors:
        name = offered_extractor(case, extractors)
    is_bifpn = _takes(extractors[name], "bifpn")
    wanted = _CODER_BIFPN if is_bifpn else _CODER_FPN
    factors = [have / want for have, want in zip(got, wanted, strict=True)]
    if all(1 / _CODER_FACTOR <= factor <= _CODER_FACTOR for factor in factors):
        return
    broken = min(got) <= 0
    weight = sum(factors) / len(factors)
    shown, want = ("/".join(f"{one:g}" for one in scales) for scales in (got, wanted))
    what = f"scales y/x/height/width are {shown}; {name} is tuned with {want}"
    what += (
        ": a scale of 0 or less can't be decoded"
        if broken
        else (f": box errors weigh {weight:.2g} times what the loss weights were tuned for")
    )

    def edit(config: Any) -> None:
        for field_name, value in zip(_CODER, wanted, strict=True):
            setattr(at(config, place), field_name, value)

    yield case.finding(
        "error" if broken else "warning",
        "box-coder-scales",
        f"{place}.y_scale",
        what,
        ", ".join(f"{field}: {value:g}" for field, value in zip(_CODER, wanted, strict=True)),
        edit,
    )
