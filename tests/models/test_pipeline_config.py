"""A pipeline.config as a value: read once, with its lines, and the same wherever it travels."""

import importlib
import pickle
import subprocess
import sys
from pathlib import Path

import pytest

from urbandet_ray.errors import ConfigError, NotFoundError
from urbandet_ray.models.pipeline_config import parse_pipeline, read_pipeline
from urbandet_ray.models.pipeline_text import map_fields
from urbandet_ray.models.zoo import model_config_path

pytestmark = pytest.mark.train

TWO_IN_ONE = """train_config { data_augmentation_options {
  random_horizontal_flip { }
  random_vertical_flip { }
} }"""


def test_missing_file(tmp_path: Path) -> None:
    """A pipeline.config that does not exist is named."""
    with pytest.raises(NotFoundError, match=r"no pipeline\.config .*absent\.config: give the path"):
        read_pipeline(tmp_path / "absent.config")


def test_unknown_field_is_named_with_its_line(tmp_path: Path) -> None:
    """And with the nearest field that there is."""
    path = tmp_path / "pipeline.config"
    path.write_text("model {\n  ssd {\n    num_klasses: 3\n  }\n}\n")
    with pytest.raises(
        ConfigError,
        match=r"pipeline\.config:3: Ssd has no field 'num_klasses'; did you mean num_classes",
    ):
        read_pipeline(path)


def test_bytes_that_are_no_text_are_refused(tmp_path: Path) -> None:
    """A file of another kind is told from a mistake in the text."""
    path = tmp_path / "pipeline.config"
    path.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ConfigError, match=r"is not text, expected a pipeline\.config"):
        read_pipeline(path)


def test_lines_of_fields() -> None:
    """Comments, lists, strings and repeated blocks do not lead astray."""
    text = (
        "# a: 1\nmodel {\n  ssd { num_classes: 3 }  # { b\n}\ntrain_config: <\n"
        "  data_augmentation_options { random_horizontal_flip { } }\n"
        "  data_augmentation_options {\n    random_crop_image { min_area: 1 }\n  }\n"
        "  freeze_variables: ['x {', 'y']\n  batch_size: 8;\n>\n"
        "eval_config {\n  metrics_set: 'a'\n  metrics_set: 'b'\n}\n"
    )
    lines = map_fields(text).lines
    assert lines["model.ssd.num_classes"] == 3
    assert lines["train_config.data_augmentation_options[1].random_crop_image.min_area"] == 8
    assert lines["train_config.batch_size"] == 11
    assert lines["eval_config.metrics_set[1]"] == 15
    assert "a" not in lines
    assert parse_pipeline(text, "x").line_of("model.ssd.image_resizer.height") == 3


def test_printed_text_is_that_of_the_message() -> None:
    """Parsed and printed once or twice, it is the same text: nothing is lost on the way."""
    once = read_pipeline(model_config_path("efficientdet_d1_640"))
    assert parse_pipeline(once.to_text(), "again").message == once.message
    assert parse_pipeline(once.to_text(), "again").to_text() == once.to_text()


def test_each_message_is_its_taker_s_own() -> None:
    """Who changes a message changes no other's."""
    config = parse_pipeline("train_config { num_steps: 3 }", "x")
    config.message.train_config.num_steps = 5
    assert config.message.train_config.num_steps == 3


def test_unpickles_where_the_od_api_is_not_imported_yet() -> None:
    """A worker gets it before it imports TensorFlow, and reads the message when it needs it."""
    sent = pickle.dumps(parse_pipeline("train_config { num_steps: 3 }", "x"))
    program = (
        "import pickle, sys\n"
        f"config = pickle.loads({sent!r})\n"
        "assert not {'tensorflow', 'object_detection'} & set(sys.modules)\n"
        "print(config.message.train_config.num_steps, config.line_of('train_config.num_steps'))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=300
    )
    assert done.stdout.split() == ["3", "1"]


TWICE = {
    "a value": (
        "train_config { num_steps: 3\n num_steps: 5 }",
        [("value", "train_config.num_steps", 2, 1, "num_steps: 5", "num_steps: 3")],
    ),
    "a value in two blocks": (
        "train_config { num_steps: 3 }\ntrain_config {\n num_steps: 5 }",
        [("merged", "train_config", 2, 1, "train_config", "train_config"),
         ("value", "train_config.num_steps", 3, 1, "num_steps: 5", "num_steps: 3")],
    ),
    "the same value": ("train_config { num_steps: 3 num_steps: 3 }", []),
    "two augmentations": (
        TWO_IN_ONE,
        [("branch", "train_config.data_augmentation_options", 3, 2, "random_vertical_flip",
          "random_horizontal_flip { }")],
    ),
    "two optimizers": (
        "train_config { optimizer {\nmomentum_optimizer { momentum_optimizer_value: 0.5 }\n"
        "adam_optimizer { } } }",
        [("branch", "train_config.optimizer", 3, 2, "adam_optimizer",
          "momentum_optimizer { momentum_optimizer_value: 0.5 }")],
    ),
    "two meta-architectures in two blocks": (
        "model { ssd { num_classes: 2 } }\nmodel { center_net { } }",
        [("merged", "model", 2, 1, "model", "model"),
         ("branch", "model", 2, 1, "center_net", "ssd { num_classes: 2 }")],
    ),
    "repeated blocks are no loss": ("eval_input_reader { }\neval_input_reader { }", []),
}  # fmt: skip


@pytest.mark.parametrize("case", TWICE)
def test_what_a_merge_loses_is_told(case: str) -> None:
    """The file is read as the OD API reads it, and what that takes from it is a value."""
    text, wanted = TWICE[case]
    config = parse_pipeline(text, "x")
    told = [(o.how, o.place, o.line, o.earlier, o.taken, o.lost) for o in config.overwritten]
    assert told == wanted
    expected = config.message.__class__()
    importlib.import_module("google.protobuf.text_format").Merge(text, expected)
    assert config.message == expected


@pytest.mark.parametrize(
    ("content", "encoding"),
    [
        (b"# \xc3\xa9\ntrain_config {\n num_steps: 3 }", "UTF-8"),
        (b"\xef\xbb\xbf# a\ntrain_config {\n num_steps: 3 }", "UTF-8 with a byte order mark"),
        ("# \xe9\r\ntrain_config {\r\n num_steps: 3 }\r\n".encode("utf-16"), "UTF-16"),
        ("# a\ntrain_config {\n num_steps: 3 }".encode("utf-16-le"), "UTF-16"),
        ("# a\ntrain_config {\n num_steps: 3 }".encode("utf-16-be"), "UTF-16"),
        ("# a\ntrain_config {\n num_steps: 3 }".encode("utf-32"), "UTF-32"),
        (b"# caf\xe9\r\ntrain_config {\r\n num_steps: 3 }\x1a", "Windows-1252"),
        (b"# a\rtrain_config {\r num_steps: 3 }", "UTF-8"),
    ],
)
def test_text_of_any_editor_is_read(tmp_path: Path, content: bytes, encoding: str) -> None:
    """Its encoding is known, and lines are counted alike."""
    path = tmp_path / "pipeline.config"
    path.write_bytes(content)
    config = read_pipeline(path)
    assert config.encoding == encoding
    assert config.message.train_config.num_steps == 3
    assert config.lines["train_config.num_steps"] == 3


@pytest.mark.parametrize(
    ("path", "mended"),
    [
        (r"C:\Users\me\ckpt-0", "C:/Users/me/ckpt-0"),
        (r"C:\2020\x", "C:/2020/x"),
        ("D:\\models\\", "D:/models/"),
    ],
)
def test_backslashes_that_do_not_parse_are_explained(path: str, mended: str) -> None:
    """In words, with the path as it should be."""
    with pytest.raises(ConfigError, match=rf'x:1: .* has backslashes, .*write "{mended}"'):
        parse_pipeline(f'train_config {{ fine_tune_checkpoint: "{path}" }}', "x")


def test_typographic_quotation_marks_are_explained() -> None:
    """What a word processor makes of a quotation mark."""
    with pytest.raises(ConfigError, match=r"is a typographic quotation mark; write \""):
        parse_pipeline("train_config { fine_tune_checkpoint: \u201cm/ckpt-0\u201d }", "x")


@pytest.mark.parametrize(
    ("text", "raws"),
    [
        (r'train_config { fine_tune_checkpoint: "C:\tf\ckpt-0" }', [r"C:\tf\ckpt-0"]),
        (r'train_input_reader { label_map_path: "C:\\a" }', [r"C:\\a"]),
        (r"""eval_input_reader { tf_record_input_reader { input_path: ["a", 'b\c', "d\f"] } }""",
         [r"b\c", r"d\f"]),
        (r"train_config { freeze_variables: 'a\.b' fine_tune_checkpoint: 'a/b' }", []),
    ],
)  # fmt: skip
def test_paths_with_backslashes_are_found(text: str, raws: list[str]) -> None:
    """As they stand in the text, whatever the parser makes of them."""
    assert [one.raw for one in parse_pipeline(text, "x").backslashed] == raws
