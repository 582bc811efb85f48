"""Does the model in the file exist: extractor, feature pyramid, resizer, box coder."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

from urbandet_ray.training.doctor.case import Case, at, setting
from urbandet_ray.training.doctor.extractors import (
    EFFICIENTDET,
    REGISTRIES,
    block_given,
    blocks_of,
    offered_extractor,
    registry,
    takes,
    unknown_extractor,
)
from urbandet_ray.training.doctor.findings import Finding
from urbandet_ray.training.doctor.levels import check_levels

_CODER = ("y_scale", "x_scale", "height_scale", "width_scale")
_CODER_FPN, _CODER_BIFPN = (10.0, 10.0, 5.0, 5.0), (1.0, 1.0, 1.0, 1.0)
"""The OD API's configs of EfficientDet have the first, those in the zoo's archives the second: the
checkpoints were trained with it."""
_CODER_FACTOR = 2.0


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
    if case.kind not in REGISTRIES:
        yield case.finding(
            "error",
            "unknown-meta-architecture",
            f"model.{case.kind}",
            f"the OD API's TF2 builder makes {', '.join(REGISTRIES)}; {case.kind} is none of them",
            "start from a pipeline.config of one of these",
        )
        return
    extractors = registry(case.kind)
    if case.extractor not in extractors:
        yield unknown_extractor(case, extractors)
    elif case.kind in ("ssd", "faster_rcnn"):
        yield from _check_pyramid(case, extractors[case.extractor])
        yield from check_levels(case)
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


def _check_pyramid(case: Case, extractor: Any) -> Iterator[Finding]:
    base = f"model.{case.kind}.feature_extractor"
    wanted = blocks_of(case, extractor)
    for block in ("fpn", "bifpn"):
        fields = case.model.feature_extractor.DESCRIPTOR.fields_by_name
        if block in wanted or block not in fields:
            continue
        if not case.model.feature_extractor.HasField(block):
            continue
        old = getattr(case.model.feature_extractor, block)
        low, high = old.min_level, old.max_level

        def edit(config: Any, block: str = block, low: int = low, high: int = high) -> None:
            feature_extractor = at(config, base)
            feature_extractor.ClearField(block)
            for other in wanted:
                if not feature_extractor.HasField(other):
                    _fill_block(feature_extractor, other, low, high)

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


def _fill_block(extractor: Any, block: str, low: int, high: int) -> None:
    pyramid = getattr(extractor, block)
    pyramid.min_level, pyramid.max_level = low, high
    if block == "bifpn":  # iterations and filters have no default: those of the EfficientDet
        size = {f"-b{size}_": both for both, size in EFFICIENTDET.items()}
        found = [both for part, both in size.items() if part in extractor.type]
        pyramid.num_iterations, pyramid.num_filters = found[0] if found else (8, 384)


def _check_multiple(case: Case) -> Iterator[Finding]:
    """A BiFPN doubles its coarsest map level by level; each must come out as the finer one."""
    size, name = case.input_size_wh(), case.resizer()[0]
    if size is None or case.kind != "ssd" or block_given(case) != "bifpn":
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
        name, _ = offered_extractor(case, extractors)
    known = [_CODER_FPN]
    if takes(extractors[name], "bifpn"):
        known = [_CODER_BIFPN, _CODER_FPN]
    wanted = min(known, key=lambda one: abs(math.log(max(got[0], 1e-9) / one[0])))
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
