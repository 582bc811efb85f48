"""Label maps and class mappings."""

import pytest

from urbandet_ray.errors import LabelError
from urbandet_ray.labels import STREET_LABELS, ClassMapping, LabelMap

COURSE = """
item {
    id: 1
    name: 'vehicle'
}
item { id: 2  name: "pedestrian" }  # on foot
item {
    name: 'cyclist'
    id: 4
}
"""


def test_pbtxt_is_read_with_its_gap() -> None:
    """Ids 1, 2, 4 of the course stay as they are."""
    assert LabelMap.parse(COURSE).names == {1: "vehicle", 2: "pedestrian", 4: "cyclist"}


def test_pbtxt_round_trip() -> None:
    """What is written is read back."""
    assert LabelMap.parse(STREET_LABELS.to_pbtxt()) == STREET_LABELS


def test_display_name_wins() -> None:
    """COCO's maps name classes by display_name; `name` is an opaque id there."""
    text = 'item { name: "/m/01g317" id: 1 display_name: "person" }'
    assert LabelMap.parse(text).names == {1: "person"}


def test_plain_list_counts_from_one_and_skips_placeholders() -> None:
    """`???` holds a place."""
    assert LabelMap.parse("person\n???\ncar\n").names == {1: "person", 3: "car"}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("item { id: 1 name: 'a' } item { id: 1 name: 'b' }", "id 1 appears more than once"),
        ("item { id: 1 name: 'a' } item { id: 2 name: 'a' }", r"names \['a'\] more than once"),
        ("item { id: 0 name: 'a' }", "ids start at 1"),
        ("item { id: 3 }", "item 1 needs an id and a name"),
        ("model { ssd {} }", "neither a label_map.pbtxt"),
        ("", "neither a label_map.pbtxt"),
        ("???", "has no classes"),
    ],
)
def test_bad_maps_are_refused(text: str, message: str) -> None:
    """Each mistake is named."""
    with pytest.raises(LabelError, match=message):
        LabelMap.parse(text)


def test_unknown_class_lists_the_known_ones() -> None:
    """So that a typo is seen at once."""
    with pytest.raises(LabelError, match="no class 'car' in the label map; it has: vehicle, ped"):
        STREET_LABELS.id_of("car")


def test_mapping_renames_and_drops() -> None:
    """car -> vehicle by rename, pedestrian by name, dog not at all."""
    model = LabelMap({1: "pedestrian", 3: "car", 18: "dog"})
    mapping = ClassMapping.by_name(model, STREET_LABELS, {"car": "vehicle"})
    assert mapping.ids == {1: 2, 3: 1}


def test_mapping_to_an_unknown_class_is_refused() -> None:
    """A rename must end in our label map."""
    with pytest.raises(LabelError, match="no class 'auto'"):
        ClassMapping.by_name(LabelMap({1: "car"}), STREET_LABELS, {"car": "auto"})


def test_mapping_without_any_match_is_refused() -> None:
    """A model of other classes would find nothing, silently."""
    with pytest.raises(LabelError, match=r"none of the model's classes \(cat, dog\)"):
        ClassMapping.by_name(LabelMap({1: "cat", 2: "dog"}), STREET_LABELS)
