"""mAP in this process: of every labelled frame that can be decoded."""

from dataclasses import replace
from pathlib import Path

import pytest
from drives import SquareDetector, frame_image, make_frame
from painted import grey_example, write_records

from urbandet_ray.errors import InputError
from urbandet_ray.exporting.accuracy import has_labels, measure_accuracy
from urbandet_ray.records.images import encode_jpeg
from urbandet_ray.records.sources import list_sources
from urbandet_ray.records.writer import write_frames
from urbandet_ray.storage import Storage


def test_a_broken_image_is_left_out(tmp_path: Path) -> None:
    """As inference does; the others count, in batches across it."""
    frames = [make_frame(index) for index in range(5)]
    frames[1] = replace(frames[1], encoded=frames[1].encoded[:-300])
    write_frames(frames, tmp_path / "drive.tfrecord")
    found = measure_accuracy(SquareDetector(batch_size=2), str(tmp_path), Storage())
    assert found.frames == 4
    assert found.map == pytest.approx(1, abs=0.1)


def test_records_without_labels_are_refused(tmp_path: Path) -> None:
    """Named with their place."""
    file = write_records(tmp_path / "a.tfrecord", [grey_example(9), grey_example(8, None)])
    with pytest.raises(InputError, match=r"a\.tfrecord, record 1 carries no labels"):
        measure_accuracy(SquareDetector(), str(file), Storage())


@pytest.mark.parametrize(
    ("records", "labelled"),
    [
        ([grey_example(1)], True),
        ([grey_example(1, ())], True),
        ([grey_example(1, None)], False),
        ([b"no example", grey_example(1)], True),
        ([b"no example"], False),
    ],
    ids=["boxes", "known empty", "none", "after a bad one", "nothing good"],
)
def test_the_first_good_record_tells_of_labels(
    tmp_path: Path, records: list[bytes], labelled: bool
) -> None:
    """Bad ones are passed over."""
    sources = list_sources(str(write_records(tmp_path / "a.tfrecord", records)), Storage())
    assert has_labels(sources, Storage()) is labelled


def test_photos_have_no_labels(tmp_path: Path) -> None:
    """A folder of images carries pixels alone."""
    (tmp_path / "a.jpg").write_bytes(encode_jpeg(frame_image(0)))
    assert not has_labels(list_sources(str(tmp_path), Storage()), Storage())
