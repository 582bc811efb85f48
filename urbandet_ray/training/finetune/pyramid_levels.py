"""Lists of an SSD that have an element a pyramid level: a checkpoint's are matched by level."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from typing import Any

Path = tuple[str, ...]
Places = Mapping[Path, Mapping[str, str | None]]
"""Path of a list below the model -> an element's name -> its name in the checkpoint, or None."""

_Levels = Callable[[int, int], Sequence[int]]

_DEFAULT = (3, 7)
_BACKBONE_TOP = 5
_PREDICTOR, _EXTRACTOR = "_box_predictor", "_feature_extractor"
_TOP_DOWN = ("residual_blocks", "top_down_blocks", "reshape_blocks", "conv_layers")
_NODES = ("node_input_blocks", "node_combine_op", "node_post_combine_block")


def pyramid_levels(ssd: Any) -> tuple[int, int] | None:
    """Lowest and highest level of an Ssd message's pyramid; None without one."""
    extractor = ssd.feature_extractor
    for name in ("fpn", "bifpn"):
        if extractor.HasField(name):
            pyramid = getattr(extractor, name)
            return int(pyramid.min_level), int(pyramid.max_level)
    return _DEFAULT if "fpn" in extractor.type else None


def places_by_level(network: Any, old: Any, new: Any) -> Places:
    """Where a checkpoint with other pyramid levels keeps the elements of the model's lists.

    Args:
        network: the OD API's model, built.
        old, new: Ssd messages of the checkpoint's and of the model's pipeline.config.

    Returns:
        Empty where the levels are the same, or unknown.
    """
    was, now = pyramid_levels(old), pyramid_levels(new)
    if was is None or now is None or was == now:
        return {}
    found: dict[Path, _Levels] = dict.fromkeys(_lists_of_predictor(network), _all_levels)
    pyramid = (_EXTRACTOR, "_fpn_features_generator")
    found |= {(*pyramid, name): _below_top for name in _TOP_DOWN}
    found |= {(*pyramid, "top_layers"): _top, (_EXTRACTOR, "_coarse_feature_layers"): _coarse}
    places = {path: _places(levels(*now), levels(*was)) for path, levels in found.items()}
    stage = getattr(network._feature_extractor, "_bifpn_stage", None)
    if stage is not None:
        nodes = _places(
            [node["name"] for node in stage.bifpn_node_config],
            bifpn_nodes(*was, int(old.feature_extractor.bifpn.num_iterations)),
        )
        places |= {(_EXTRACTOR, "_bifpn_stage", name): nodes for name in _NODES}
    return places


def _lists_of_predictor(network: Any) -> list[Path]:
    predictor = network._box_predictor
    towers = getattr(predictor, "_base_tower_layers_for_heads", {})
    heads = {
        name: head for name, head in predictor._prediction_heads.items() if isinstance(head, list)
    }
    return [
        *((_PREDICTOR, "_base_tower_layers_for_heads", name) for name in towers),
        *((_PREDICTOR, "_prediction_heads", name) for name in heads),
        (_PREDICTOR, "_additional_projection_layers"),
        (_PREDICTOR, "_shared_nets"),
    ]


def _places(now: Sequence[Hashable], was: Sequence[Hashable]) -> dict[str, str | None]:
    old = {what: str(place) for place, what in enumerate(was)}
    return {str(place): old.get(what) for place, what in enumerate(now)}


def _all_levels(low: int, high: int) -> Sequence[int]:
    return range(low, high + 1)


def _top(_low: int, high: int) -> Sequence[int]:
    return (min(high, _BACKBONE_TOP),)


def _below_top(low: int, high: int) -> Sequence[int]:
    return range(_top(low, high)[0] - 1, low - 1, -1)


def _coarse(low: int, high: int) -> Sequence[int]:
    return range(_top(low, high)[0] + 1, high + 1)


def bifpn_nodes(low: int, high: int, iterations: int) -> list[str]:
    """Names in the order in which they are made (bidirectional_feature_pyramid_generators.py)."""
    names = [f"0_up_lvl_{level}" for level in range(min(high, _BACKBONE_TOP) + 1, high + 1)]
    for number in range(1, iterations + 1):
        names += [f"{number}_dn_lvl_{level}" for level in range(high - 1, low - 1, -1)]
        names += [f"{number}_up_lvl_{level}" for level in range(low + 1, high + 1)]
    return names
