"""Tables that people read."""

from urbandet_ray.tables import text_table


def test_columns_are_as_wide_as_their_widest_cell() -> None:
    """The first to the left, figures to the right."""
    rows = [("class", "AP"), ("vehicle", "0.5"), ("cyclist", "-")]
    assert text_table(rows).splitlines() == ["class     AP", "vehicle  0.5", "cyclist    -"]


def test_a_side_may_be_named_for_each_column() -> None:
    """Names that come last read from the left, and no line ends in blanks."""
    rows = [("id", "class", "boxes"), ("1", "vehicle", "70"), ("12", "a", "")]
    told = text_table(rows, "rll")
    assert told.splitlines() == ["id  class    boxes", " 1  vehicle  70", "12  a"]


def test_no_rows_are_no_table() -> None:
    """A training that copies no weights has no parts to list."""
    assert text_table([]) == ""
