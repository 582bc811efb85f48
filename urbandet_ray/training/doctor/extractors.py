"""Feature extractors: which there are in TF2, what each takes, and which one a name means."""

from __future__ import annotations

import inspect
import re
from collections.abc import Mapping
from difflib import get_close_matches
from typing import Any

from urbandet_ray.models.odapi import open_odapi
from urbandet_ray.training.doctor.case import Case, setting
from urbandet_ray.training.doctor.findings import Finding

REGISTRIES = {
    "ssd": "SSD_KERAS_FEATURE_EXTRACTOR_CLASS_MAP",
    "faster_rcnn": "FASTER_RCNN_KERAS_FEATURE_EXTRACTOR_CLASS_MAP",
    "center_net": "CENTER_NET_EXTRACTOR_FUNCTION_MAP",
}
EFFICIENTDET = {(3, 64): 0, (4, 88): 1, (5, 112): 2, (6, 160): 3, (7, 224): 4, (7, 288): 5}
EFFICIENTDET |= {(8, 384): 6}
"""BiFPN iterations and filters of EfficientDet D0 to D6 (arXiv 1911.09070, table 1)."""

_BLOCKS = {"fpn": "fpn_min_level", "bifpn": "bifpn_min_level"}
_EFFICIENT = re.compile(r"efficient(?:det|net)[-_]?[bd]?(\d)")
_SAME_MAPS = "ssd_mobilenet_v2_keras"
_NEAREST = {
    "ssd_inception_v2": _SAME_MAPS,
    "ssd_inception_v3": _SAME_MAPS,
    "ssd_mobilenet_v1_ppn": "ssd_mobilenet_v1_keras",
    "ssd_mobilenet_v2_mnasfpn": "ssd_mobilenet_v2_fpn_keras",
    "ssd_mobilenet_v3_large": _SAME_MAPS,
    "ssd_mobilenet_v3_small": _SAME_MAPS,
    "ssd_mobilenet_v3_small_pruned": _SAME_MAPS,
    "ssd_mobilenet_edgetpu": _SAME_MAPS,
    "ssd_mobiledet_cpu": _SAME_MAPS,
    "ssd_mobiledet_dsp": _SAME_MAPS,
    "ssd_mobiledet_edgetpu": _SAME_MAPS,
    "ssd_mobiledet_gpu": _SAME_MAPS,
    "ssd_spaghettinet": _SAME_MAPS,
    "embedded_ssd_mobilenet_v1": "ssd_mobilenet_v1_keras",
    "ssd_resnet50_v1_ppn": "ssd_resnet50_v1_fpn_keras",
    "ssd_resnet101_v1_ppn": "ssd_resnet101_v1_fpn_keras",
    "ssd_resnet152_v1_ppn": "ssd_resnet152_v1_fpn_keras",
    "ssd_pnasnet": "ssd_resnet152_v1_fpn_keras",
    "faster_rcnn_nas": "faster_rcnn_inception_resnet_v2_keras",
    "faster_rcnn_pnas": "faster_rcnn_inception_resnet_v2_keras",
    "faster_rcnn_inception_v2": "faster_rcnn_resnet50_keras",
    "faster_rcnn_mobilenet_v1": "faster_rcnn_resnet50_keras",
}
"""TF1's networks that TF2 lacks: the one of TF2 that is nearest in size and takes the same anchors
(a network's name says its family, not its size: Inception v2 is near ResNet-50, not near Inception
ResNet v2)."""


def registry(kind: str) -> Mapping[str, Any]:
    """Feature extractors the OD API builds for a meta-architecture, by name."""
    name = REGISTRIES.get(kind)
    return getattr(open_odapi().model_builder, name) if name else {}


def takes(extractor: Any, block: str) -> bool:
    """Whether an extractor of the registry is built with a feature pyramid's block."""
    return _BLOCKS[block] in inspect.signature(extractor).parameters


def blocks_of(case: Case, extractor: Any) -> list[str]:
    """The blocks, fpn or bifpn, that an extractor takes from the file's message."""
    fields = case.model.feature_extractor.DESCRIPTOR.fields_by_name
    return [name for name in _BLOCKS if name in fields and takes(extractor, name)]


def block_given(case: Case) -> str:
    """The feature pyramid's block in the file; "" where there is none."""
    extractor = case.model.feature_extractor
    present = [
        name
        for name in _BLOCKS
        if name in extractor.DESCRIPTOR.fields_by_name and extractor.HasField(name)
    ]
    return present[0] if present else ""


def offered_extractor(case: Case, extractors: Mapping[str, Any]) -> tuple[str, str]:
    """The extractor most likely meant, and why.

    By meaning first: TF1's name of the same network, then the file's pyramid block, then TF1's
    networks that TF2 lacks; by spelling last.
    """
    block, name = block_given(case), case.extractor.lower()
    fitting = [each for each, one in extractors.items() if not block or takes(one, block)]
    twin = _twin(name, extractors, block)
    if twin:
        return twin, "the same network's name in TF2"
    if block == "bifpn":
        bifpn = case.model.feature_extractor.bifpn
        size = EFFICIENTDET.get((bifpn.num_iterations, bifpn.num_filters))
        same = [each for each in fitting if f"-b{size}_" in each]
        if size is not None and same:
            return same[0], "the one for the file's bifpn block"
    nearest = _with_block(_NEAREST.get(name, ""), extractors, block)
    if nearest in fitting:
        return nearest, "TF2 has no such network, this one is nearest in size"
    found = get_close_matches(case.extractor, fitting or list(extractors), n=1, cutoff=0.0)[0]
    return found, f"the one for the file's {block} block" if block else "the nearest name"


def _twin(name: str, extractors: Mapping[str, Any], block: str) -> str:
    """The extractor that is the same network by another name; "" where there is none."""
    efficient = _EFFICIENT.search(name)
    if efficient is not None:
        found = [each for each in extractors if f"-b{efficient[1]}_" in each]
        return found[0] if found and block != "fpn" else ""
    wanted = _parts(name) - {"keras"}
    same = [each for each in extractors if _parts(each) - {"keras"} == wanted]
    return _with_block(same[0], extractors, block) if same else ""


def _with_block(name: str, extractors: Mapping[str, Any], block: str) -> str:
    """The network with the file's pyramid, where there is one; "" where it takes no such block."""
    if name in extractors and block and not takes(extractors[name], block):
        name = name.replace("_keras", f"_{block}_keras")
        name = name if name in extractors else name.replace(f"_{block}_", f"_v1_{block}_")
        return name if name in extractors else ""
    return name


def _parts(name: str) -> frozenset[str]:
    """Words and numbers of a name: resnet50_v1_fpn and resnet_v1_50_fpn are one network's."""
    return frozenset(re.findall(r"[a-z]+|\d+", name)) - {"center", "net", "centernet"}


def unknown_extractor(case: Case, extractors: Mapping[str, Any]) -> Finding:
    """The finding about a name that TF2's model builder does not know."""
    place = f"model.{case.kind}.feature_extractor.type"
    offered, why = offered_extractor(case, extractors)
    elsewhere = [kind for kind in REGISTRIES if case.extractor in registry(kind)]
    also = f" (it belongs under {elsewhere[0]})" if elsewhere else ""
    return case.finding(
        "error",
        "unknown-feature-extractor",
        place,
        f"{case.kind} has no feature extractor {case.extractor!r} in TF2{also}: the model can't "
        f"be built; it has {', '.join(sorted(extractors))}",
        f'type: "{offered}", {why}',
        setting(place, offered),
    )
