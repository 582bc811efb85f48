"""Do num_classes, the label map and the records speak of the same classes."""

from __future__ import annotations

from collections.abc import Iterator

from urbandet_ray.records.class_column import NO_CLASS, UNKNOWN_TEXT
from urbandet_ray.training.doctor.case import Case, setting
from urbandet_ray.training.doctor.findings import Finding

_RARE_SHARE = 0.02
_LABELS_PLACE = "train_input_reader.label_map_path"


def check_classes(case: Case) -> Iterator[Finding]:
    """num_classes against the ids of the label map and of the records, rare classes."""
    if case.model is not None and "num_classes" in case.model.DESCRIPTOR.fields_by_name:
        yield from _check_count(case)
    yield from _check_known(case)
    yield from _check_map(case)
    yield from _check_rare(case)
    yield from _check_val(case)


def _name(case: Case, class_id: int) -> str:
    if case.labels is not None and class_id in case.labels.names:
        return case.labels.names[class_id]
    told = case.train.names if case.train is not None else {}
    return told.get(class_id, f"class {class_id}")


def _check_count(case: Case) -> Iterator[Finding]:
    place, count = f"model.{case.kind}.num_classes", int(case.model.num_classes)
    boxes = case.train.boxes_of if case.train is not None else {}
    known = sorted(case.labels.names if case.labels is not None else boxes)
    if not known:
        return
    highest = known[-1]
    if highest > count:
        yield _beyond(case, place, count, known, boxes)
    elif count > highest:
        yield case.finding(
            "warning",
            "num-classes-unused",
            place,
            f"num_classes {count}, but the highest class id is {highest}: "
            f"{count - highest} outputs have no class to learn",
            f"num_classes: {highest}",
            setting(place, highest),
        )
    if len(known) < highest:
        missing = sorted(set(range(1, highest + 1)) - set(known))
        yield case.finding(
            "note",
            "label-map-gap",
            _LABELS_PLACE,
            f"ids {', '.join(map(str, missing))} of 1 to {highest} have no class: their outputs "
            "only ever learn background, which is harmless",
            "nothing, or number the classes without gaps",
        )


def _beyond(case: Case, place: str, count: int, known: list[int], boxes: dict[int, int]) -> Finding:
    highest = known[-1]
    lost = []
    for class_id in (one for one in known if one > count):
        held = f" ({boxes[class_id]:,} boxes)" if class_id in boxes else ""
        lost.append(f"{_name(case, class_id)}{held}")
    plural = len(lost) > 1
    remap = ", ".join(
        f"{class_id} to {new}" for new, class_id in enumerate(known, 1) if new != class_id
    )
    other = ""
    if remap:
        other = f", or renumber without gaps ({remap}) in the label map and the records"
        if case.train is not None and case.train.names:
            other = (
                f", or renumber without gaps ({remap}) in the label map: the records carry class "
                "names, from which the OD API takes the ids"
            )
    return case.finding(
        "error",
        "id-beyond-num-classes",
        place,
        f"num_classes {count} holds ids 1 to {count}, the classes have ids "
        f"{', '.join(map(str, known))}: {' and '.join(lost)} {'become' if plural else 'becomes'} "
        "a one-hot vector of zeros, so the network learns to see background there, and the "
        f"evaluation counts {'them' if plural else 'it'} as {_name(case, 1)}",
        f"num_classes: {highest}{other}",
        setting(place, highest),
    )


def _check_known(case: Case) -> Iterator[Finding]:
    if case.labels is None:
        return
    for split, reader in ((case.train, "train_input_reader"), (case.val, "eval_input_reader")):
        if split is None:
            continue
        for class_id, count in split.boxes_of.items():
            if class_id not in case.labels.names and not (
                class_id == NO_CLASS and split.faults.counts[UNKNOWN_TEXT]
            ):
                yield case.finding(
                    "error" if count == len(split.class_ids) else "warning",
                    "class-not-in-label-map",
                    f"{reader}.label_map_path",
                    f"{count:,} boxes in {split.uri} have class id {class_id} "
                    f"({split.names.get(class_id, 'no name')}), the label map has "
                    f"{', '.join(map(str, case.labels.names))}: they are left out",
                    f"add id {class_id} to the label map, or use the one the records were made "
                    "with; nothing, where the other classes are all you want",
                )


def _check_map(case: Case) -> Iterator[Finding]:
    """What reading the label map loses."""
    for remark in case.labels.remarks if case.labels is not None else ():
        yield case.finding(
            "warning", "label-map", _LABELS_PLACE, remark, "mend the label map, an item a class"
        )


def _check_rare(case: Case) -> Iterator[Finding]:
    train = case.train
    if train is None or not len(train.class_ids):
        return
    counts, total = train.boxes_of, len(train.class_ids)
    for class_id in sorted(counts if case.labels is None else case.labels.names):
        count, name = counts.get(class_id, 0), _name(case, class_id)
        if not count:
            yield case.finding(
                "warning",
                "class-without-boxes",
                _LABELS_PLACE,
                f"{name} is in the label map, but no training box has its id {class_id}: it can't "
                "be learned",
                "add frames that show it, or take it out of the label map",
            )
        elif count < _RARE_SHARE * total:
            frames = train.frames_with.get(class_id, 0)
            yield case.finding(
                "note",
                "rare-class",
                _LABELS_PLACE,
                f"{name} has {count:,} of {total:,} training boxes ({count / total:.2%}), in "
                f"{frames:,} of {train.frames:,} frames: its precision will lag behind",
                f"repeat the frames that show a {name} when sampling",
            )


def _check_val(case: Case) -> Iterator[Finding]:
    train, val = case.train, case.val
    if train is None or val is None:
        return
    missing = set(train.boxes_of) - set(val.boxes_of)
    for class_id in sorted(missing if case.labels is None else missing & set(case.labels.names)):
        yield case.finding(
            "note",
            "class-not-in-val",
            "eval_input_reader",
            f"no validation box is a {_name(case, class_id)}: its precision can't be measured, "
            "and COCO mAP leaves it out without a word",
            "move a segment that shows one to the validation records",
        )
