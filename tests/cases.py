"""Small inputs that were read wrongly once, each with what it has to come to.

    PYTHONPATH=tests python tests/cases.py FOLDER

prints a table of all, and ends with code 1 where one is wrong. The folder holds records/,
labelmaps/, images/, configs/ and video/. It is not part of the project.
"""

from __future__ import annotations

import contextlib
import io
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import av
import numpy as np

from urbandet_ray import cli
from urbandet_ray.errors import UrbandetError
from urbandet_ray.frames import Frame
from urbandet_ray.label_files import read_labels
from urbandet_ray.records.images import decode_image
from urbandet_ray.records.sources import list_sources, read_source
from urbandet_ray.storage import Storage
from urbandet_ray.tables import text_table


@dataclass(frozen=True)
class Case:
    """An input, and what it has to come to.

    Attributes:
        expected: in words.
        look: gets the input's path and an empty folder; returns what was said or read.
        words: are all in that.
        absent: none of them is.
    """

    name: str
    expected: str
    look: Callable[[Path, Path], str]
    words: tuple[str, ...]
    absent: tuple[str, ...] = ()

    def wrong(self, folder: Path) -> str:
        """What is missing or too much; empty where the case is as expected."""
        with tempfile.TemporaryDirectory() as empty:
            found = self.look(folder / self.name, Path(empty))
        lacks = [f"lacks {word!r}" for word in self.words if word not in found]
        lacks += [f"says {word!r}" for word in self.absent if word in found]
        return "; ".join([*lacks, f"in: {found}"]) if lacks else ""


def told(*words: object) -> str:
    """All that a command says, in one line, and its exit code."""
    out, argv, code = io.StringIO(), sys.argv, 0
    sys.argv = ["urbandet", *map(str, words)]
    try:
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(out):
            cli.main()
    except SystemExit as leave:
        code = int(str(leave.code or 0))
    finally:
        sys.argv = argv
    return " ".join([*out.getvalue().split(), f"exit {code}"])


def stats(data: Path, _: Path) -> str:
    """`urbandet data stats` on train/."""
    return told("data", "stats", data / "train")


def whole_stats(data: Path, _: Path) -> str:
    """`urbandet data stats` on the folder."""
    return told("data", "stats", data)


def validated(data: Path, _: Path) -> str:
    """`urbandet data validate` on the folder or file."""
    return told("data", "validate", data)


def doctored(data: Path, _: Path) -> str:
    """`urbandet doctor` on the folder's pipeline.config and its records."""
    return told("doctor", data / "pipeline.config", "--data", data)


def examined(config: Path, _: Path) -> str:
    """`urbandet doctor` on a pipeline.config, with the good records."""
    return told("doctor", config, "--data", config.parents[1] / "records" / "good")


def mended(data: Path, empty: Path) -> str:
    """`urbandet doctor` on what `--fix` wrote."""
    fixed = empty / "fixed.config"
    before = told("doctor", data / "pipeline.config", "--data", data, "--fix", fixed)
    return before + (told("doctor", fixed, "--data", data) if fixed.exists() else " not written")


def ids(data: Path, _: Path) -> str:
    """Class ids of the first training frame, and their names, by the folder's label map."""
    storage = Storage()
    labels = read_labels(str(data / "label_map.pbtxt"), storage)
    (source, *_rest) = list_sources(str(data / "train"), storage)
    frame = next(iter(read_source(source, storage, labels=labels))).frame
    assert frame.truth is not None
    return " ".join(f"{n}={labels.names[n]}" for n in map(int, frame.truth.class_ids))


def names(label_map: Path, _: Path) -> str:
    """Of a label map, or why it is refused."""
    try:
        read = read_labels(str(label_map), Storage())
    except UrbandetError as error:
        return f"refused: {error}"
    remarks = " ".join(read.remarks)
    return " ".join(f"{n}={name}" for n, name in sorted(read.names.items())) + f" {remarks}"


def decoded(path: Path, _: Path) -> str:
    """How many frames of a file are decoded."""
    storage = Storage()
    frames = [
        one.frame
        for source in list_sources(str(path), storage)
        for one in read_source(source, storage)
    ]
    pixels = [decode_image(frame.encoded) for frame in frames if isinstance(frame, Frame)]
    return f"{len(frames)} frames, {len(pixels)} decoded"


def as_clean(folder: Path, _: Path) -> str:
    """Whether both pictures of a folder have the same pixels."""
    pixels = [decode_image(path.read_bytes()) for path in sorted(folder.glob("*.jpg"))]
    return f"{len(pixels)} pictures, {'the same' if np.array_equal(*pixels) else 'different'}"


def played(video: Path, empty: Path) -> str:
    """What a video's run says, how many frames it has and how long the video made of it plays."""
    run, out = empty / "run", empty / "out.mp4"
    said = told("infer", video, "--out", run, "--actors", 1)
    made = told("video", run, "--out", out)
    if not out.exists():
        return f"{said} {made} no video"
    with av.open(str(out)) as container:
        stream = container.streams.video[0]
        seconds = float((stream.duration or 0) * (stream.time_base or 0))
    return f"{said} {made} plays {seconds:.2f} s"


CASES = (
    Case(
        "records/good",
        "named by the records' own label map",
        stats,
        ("car", "bus", "16 boxes", "exit 0"),
        ("vehicle", "pedestrian"),
    ),
    Case("records/text_vs_label", "ids [2, 1], as the OD API decodes", ids, ("2=car 1=bus",)),
    Case(
        "records/text_vs_label",
        "validate tells the disagreement",
        validated,
        ("have a class/label that is another class's number than their class/text", "24 boxes"),
    ),
    Case(
        "records/text_vs_label",
        "doctor tells the disagreement",
        doctored,
        ("warning: class-text", "the text decides", "exit 0"),
    ),
    Case("records/text_only", "ids from the text", ids, ("1=car 2=bus",)),
    Case("records/text_only", "no error", doctored, ("0 errors", "exit 0")),
    Case("records/zero_based", "ids from the text", ids, ("1=car 2=bus",)),
    Case("records/zero_based", "no error", doctored, ("0 errors", "exit 0")),
    Case(
        "records/pixels",
        "stats says what the dropped boxes look like",
        stats,
        ("16 boxes look like pixels", " 0 boxes"),
    ),
    Case("records/pixels", "validate says it", validated, ("24 boxes look like pixels",)),
    Case("records/pixels", "doctor says it", doctored, ("boxes look like pixels",)),
    Case("records/float_masks", "boxes and classes are kept", stats, ("16 boxes", "0 bad records")),
    Case("records/float_masks", "no error", doctored, ("0 errors", "exit 0")),
    Case(
        "records/same_names",
        "no leak",
        validated,
        ("no problems found", "exit 0"),
        ("segments-shared", "near-duplicate", "leak"),
    ),
    Case(
        "records/same_names",
        "trains",
        doctored,
        ("0 errors", "exit 0"),
        ("segments-shared", "near-duplicate", "leak"),
    ),
    Case(
        "records/roboflow",
        "all parts by their label map",
        whole_stats,
        ("train 1", "val 1", "test 1", "exit 0"),
        ("vehicle",),
    ),
    Case("records/roboflow", "validate finds the same", validated, ("exit 0",), ("vehicle",)),
    Case("records/roboflow", "doctor finds the same", doctored, ("0 errors", "exit 0")),
    Case("records/two_endings", "both files count", stats, ("2 TFRecord files", "13 frames")),
    Case("records/two_endings", "in the doctor too", doctored, ("13 frames", "0 errors")),
    Case(
        "records/many_boxes",
        "doctor says what a limit of 100 would lose",
        doctored,
        ("box-limit", "would lose 400 of 1,200 boxes", "makes room for all"),
    ),
    Case("records/exif", "validate tells of the turn", validated, ("EXIF",)),
    Case(
        "records/exif", "doctor tells of the turn", doctored, ("exif-turn", "as they are encoded")
    ),
    Case(
        "records/keypoints/kpts.config",
        "an error that names keypoints",
        lambda config, _: told("doctor", config, "--data", config.parent),
        ("error: task-not-trained", "keypoints", "exit 3"),
    ),
    Case(
        "labelmaps/keypoints.pbtxt",
        "nothing dropped, nothing refused",
        names,
        ("1=",),
        ("refused",),
    ),
    Case("labelmaps/hash_name.pbtxt", "a # in a quoted name", names, ("#",), ("refused",)),
    Case("labelmaps/brace_name.pbtxt", "a brace in a quoted name", names, ("{",), ("refused",)),
    Case("labelmaps/background0.pbtxt", "background with id 0", names, ("1=",), ("refused",)),
    Case(
        "labelmaps/three_in_one.pbtxt",
        "3: pear, and a word on the three ids",
        names,
        ("3=pear", "id"),
        ("refused",),
    ),
    Case(
        "labelmaps/missing_brace.pbtxt",
        "an error with line and column",
        names,
        ("refused", "missing_brace.pbtxt:4:1: "),
    ),
    Case("images/bmp.tfrecord", "decoded", decoded, ("frames",), (" 0 decoded",)),
    Case("images/webp.tfrecord", "decoded", decoded, ("frames",), (" 0 decoded",)),
    Case("images/png_badtext.tfrecord", "decoded", decoded, ("frames",), (" 0 decoded",)),
    Case("images/stray", "stray.jpg has clean.jpg's pixels", as_clean, ("2 pictures, the same",)),
    Case("configs/bom.config", "read", examined, ("0 errors",), ("cannot be read",)),
    Case(
        "configs/dup_message.config",
        "merged, with a finding",
        examined,
        (
            "given-twice",
            "a value of the second wins",
        ),
    ),
    Case(
        "configs/two_in_one_option.config",
        "merged, with a finding",
        examined,
        ("random_horizontal_flip is lost",),
    ),
    Case(
        "configs/windows_t.config",
        "a backslash path, in words",
        examined,
        ("backslash", "forward slashes"),
    ),
    Case("configs/quant.config", "graph_rewriter does nothing here", examined, ("graph_rewriter",)),
    Case(
        "configs/frcnn_fpn",
        "the written file builds, no worse",
        mended,
        ("0 errors",),
        ("Received filters", "Traceback"),
    ),
    Case("video/cover_first.mp4", "30 frames of street", played, ("30 frames",), ("Traceback",)),
    Case("video/two_seconds_at_30.mp4", "its video plays 2 s", played, ("plays 2.0",)),
    Case(
        "video/mjpeg_garbage.avi",
        "about 99 frames, one dead letter",
        played,
        ("99 frames", "1 dead letter", "exit 3"),
    ),
)


def main() -> int:
    """Prints the table; 1 where a case is wrong."""
    folder, rows, code = Path(sys.argv[1]), [["input", "expected", "result"]], 0
    for case in CASES:
        wrong = case.wrong(folder)
        code = 1 if wrong else code
        rows.append([case.name, case.expected, wrong or "as expected"])
    sys.stdout.write(text_table(rows, "lll") + "\n")
    return code


if __name__ == "__main__":
    sys.exit(main())
