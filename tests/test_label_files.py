"""Label maps as files: one encoding and one refusal, whoever reads them."""

from pathlib import Path

import pytest

from urbandet_ray.errors import LabelError
from urbandet_ray.label_files import label_text, read_labels
from urbandet_ray.labels import STREET_LABELS
from urbandet_ray.storage import Storage

STORAGE = Storage()
TEXT = STREET_LABELS.to_pbtxt()


@pytest.mark.parametrize("text", [TEXT, "vehicle\npedestrian\n???\ncyclist\n"])
def test_the_mark_of_windows_editors_is_no_part_of_a_name(tmp_path: Path, text: str) -> None:
    """Notepad saves UTF-8 with a byte order mark: the first class was called \\ufeffvehicle."""
    file = tmp_path / "label_map.pbtxt"
    file.write_bytes(b"\xef\xbb\xbf" + text.encode())
    assert read_labels(str(file), STORAGE) == STREET_LABELS


def test_no_file_means_the_course_s_classes() -> None:
    """`--labels` left out."""
    assert read_labels(None, STORAGE) is STREET_LABELS


@pytest.mark.parametrize(
    "data", [TEXT.encode("utf-16"), b"item { id: 1 name: 'caf\xe9' }"], ids=["UTF-16", "Latin-1"]
)
def test_another_encoding_is_refused_by_name(data: bytes, tmp_path: Path) -> None:
    """The byte and the next step are in the message."""
    file = tmp_path / "map.pbtxt"
    file.write_bytes(data)
    words = r"map\.pbtxt is not UTF-8 text \(byte \d+ is 0x\w\w\), expected a label_map\.pbtxt.*8$"
    with pytest.raises(LabelError, match=words):
        read_labels(str(file), STORAGE)


def test_other_files_about_classes_say_what_they_should_be() -> None:
    """A mapping is read by the same rule."""
    with pytest.raises(LabelError, match="expected lines such as car: vehicle: save it as UTF-8"):
        label_text(b"caf\xe9: vehicle", "map.yaml", "lines such as car: vehicle")


def test_what_a_label_map_loses_is_logged(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Whichever command reads it."""
    file = tmp_path / "label_map.pbtxt"
    file.write_text("item { id: 1 id: 2 name: 'car' }")
    assert read_labels(str(file), STORAGE).names == {2: "car"}
    assert f"{file}: item 1 has 2 values of id (1, 2): the last one counts" in caplog.text
