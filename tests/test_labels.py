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
        (
            "item { id: 0 name: 'a' }",
            r"label map:1:1: item 1 \('a'\) has id 0: ids start at 1, 0 is the background's",
        ),
        ("# ours\nitem {}\n item { id: -1 name: 'a' }", r"label map:2:1: .* has no id, which is 0"),
        ("item { id: 1 name: 'b' }\n item:\n{ id: -1 name: 'a' }", r"map:2:2: item 2 .* has id -1"),
        ("item [{ id: 1 name: 'b' },\n { name: 'a' }]", r"label map:2:2: item 2 \('a'\) has no id"),
        (
            "item { id: 1 name: 'item {' keypoints { id: 2 } } item { id: 0 }",
            r"label map:1:51: item 2 \('class 0'\) has id 0",
        ),
        (
            "item {\n  id: 1\n  name: 'a'\nitem {\n  id: 2\n}\n",
            r"label map:4:1: .*no field named .item",
        ),
        ("item { id: 'one' name: 'a' }", r"label map:1:12: .*Couldn't parse integer: 'one'"),
        ("item { id: 1 name: 'a", r"label map:1:20: .*'a"),
        ("item { id: 1 label: 'a' }", r"label map:1:14: .*no field named .label"),
        ("model { ssd {} }", "neither a label_map.pbtxt"),
        ("", "neither a label_map.pbtxt"),
        ("???", "has no classes"),
    ],
)
def test_bad_maps_are_refused(text: str, message: str) -> None:
    """Each mistake is named."""
    with pytest.raises(LabelError, match=message):
        LabelMap.parse(text)


@pytest.mark.parametrize(
    "text",
    [
        "item: { id: 1, name: 'a b' };",
        "item < id: 1; name: 'a b' >",
        "item [ { id: 1 name: 'a' ' b' } ]",
        "# item { id: 9 name: 'x' }\nitem{id:1 name:\"a\\x20b\"}",
        "item { id: 0x1 name: 'a b' frequency: RARE instance_count: 5 ancestor_ids: [3, 4] }",
        "item { keypoints { id: 0 label: 'nose' } keypoints <label: 'e'> id: 1 name: 'a b' }",
    ],
)
def test_text_is_read_by_protobuf_s_rules(text: str) -> None:
    """Every spelling that the OD API reads, and every field of its proto."""
    labels = LabelMap.parse(text)
    assert (labels.names, labels.remarks) == ({1: "a b"}, ())


@pytest.mark.parametrize(
    "name", ["lot #3", "sign {50}", "it's", 'a "b"', "back\\slash", "a\nb", "車"]
)
def test_any_name_is_written_and_read_back(name: str) -> None:
    """Braces, hashes, quotes and other scripts are parts of a name."""
    labels = LabelMap({1: name, 2: "car"})
    assert LabelMap.parse(labels.to_pbtxt()) == labels


def test_what_a_merge_loses_is_told() -> None:
    """The last of several values counts; each that is lost is listed."""
    labels = LabelMap.parse("item { id: 1 name: 'a' id: 2 name: 'b' id: 3 name: 'c' }")
    assert labels.names == {3: "c"}
    assert labels.remarks[0].startswith("item 1 has 3 values of id (1, 2, 3): the last one counts")
    assert labels.remarks[1].startswith("item 1 has 3 values of name (a, b, c)")


def test_two_items_of_one_id_are_one_class() -> None:
    """The OD API shows the first name, and takes the texts of both."""
    labels = LabelMap.parse("item { id: 1 name: 'car' } item { id: 1 name: 'van' }")
    assert labels.names == {1: "car"}
    assert labels.id_of("van") == 1
    assert "id 1 is 'car' and again 'van' (item 2)" in labels.remarks[0]


def test_two_classes_of_one_name_are_told_apart() -> None:
    """By their `name` where that differs, else by their id."""
    items = [f"item {{ id: {n} name: 'm/{n}' display_name: 'bat' }}" for n in (1, 2)]
    labels = LabelMap.parse(" ".join(items))
    assert labels.names == {1: "bat (m/1)", 2: "bat"}
    assert (labels.id_of("m/1"), labels.id_of("bat")) == (1, 2)
    assert labels.remarks[0].startswith("'bat' is the name of two classes, and means id 2: id 1 is")
    labels = LabelMap.parse("item { id: 1 name: 'a' } item { id: 2 name: 'a' }")
    assert labels.names == {1: "a (id 1)", 2: "a"}


ITEM = "item {{ id: {} name: '{}' display_name: '{}' }}"


@pytest.mark.parametrize(
    ("items", "id_of_car"),
    [
        (((3, "car", "x"), (1, "car", "y")), 1),
        (((3, "x", "car"), (1, "y", "car")), 1),
        (((3, "x", "car"), (1, "car", "y")), 3),
        (((3, "car", "x"), (1, "y", "car")), 3),
        (((1, "car", "x"), (3, "car", "car"), (2, "z", "car")), 3),
    ],
)
def test_a_text_of_several_items_means_what_the_od_api_takes(
    items: tuple[tuple[int, str, str], ...], id_of_car: int
) -> None:
    """The higher of its last item by name and its last item by display name."""
    labels = LabelMap.parse(" ".join(ITEM.format(*one) for one in items))
    assert labels.ids_by_text["car"] == id_of_car
    assert set(labels.names) == {one[0] for one in items}


@pytest.mark.parametrize(
    "text",
    [
        ITEM.format(1, "m/1", "car"),
        ITEM.format(1, "m/1", "car") + ITEM.format(2, "m/2", "car"),
        "item { id: 0 name: 'background' } item { id: 1 name: 'car' }",
        "item { id: 0 name: 'none' display_name: 'background' } item { id: 4 name: 'car' }",
        "item { id: 1 name: 'car' } item { id: 1 name: 'van' } item { id: 1 name: 'bus' }",
        ITEM.format(2, "x", "car") + ITEM.format(1, "y", "car") + "item { id: 5 }",
    ],
)
def test_every_text_of_a_map_is_written_and_kept(text: str) -> None:
    """A training's label map means what the data's own does, and a run's manifest too."""
    labels = LabelMap.parse(text)
    assert LabelMap.parse(labels.to_pbtxt()) == labels
    assert LabelMap.from_dict(labels.to_dict()) == labels
    assert labels != LabelMap(labels.names)


def test_a_class_without_a_name_is_its_number() -> None:
    """The OD API reads it: records with numbers alone need no names."""
    labels = LabelMap.parse("item { id: 3 }\nitem { id: 4 name: 'car' }")
    assert labels.names == {3: "class 3", 4: "car"}
    assert labels.remarks == ("item 1 has no name: it is shown as 'class 3'",)


def test_the_background_is_no_class() -> None:
    """Id 0 is its own, as in the OD API."""
    labels = LabelMap.parse("item { id: 0 name: 'background' } item { id: 1 name: 'car' }")
    assert (labels.names, labels.remarks) == ({1: "car"}, ())


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
