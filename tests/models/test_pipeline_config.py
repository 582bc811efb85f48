"""A pipeline.config as a value: read once, with its lines, and the same wherever it travels."""

import pickle
import subprocess
import sys
from pathlib import Path

import pytest

from urbandet_ray.errors import ConfigError, NotFoundError
from urbandet_ray.models.pipeline_config import field_lines, parse_pipeline, read_pipeline
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
    lines = field_lines(text)
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


def test_two_augmentations_in_one_block_are_taken_apart() -> None:
    """The repair says which they were, and where the second one stands."""
    config = parse_pipeline(TWO_IN_ONE, "x")
    options = config.message.train_config.data_augmentation_options
    assert [one.WhichOneof("preprocessing_step") for one in options] == [
        "random_horizontal_flip",
        "random_vertical_flip",
    ]
    (repair,) = config.repairs
    assert (repair.line, repair.first, repair.second) == (
        3,
        "random_horizontal_flip",
        "random_vertical_flip",
    )


def test_one_module_parses_the_text_of_a_pipeline_config() -> None:
    """Whoever needs the message takes the value; nobody parses or prints its text again."""
    package = Path(sys.modules["urbandet_ray"].__file__ or "").parent
    users = [path for path in package.rglob("*.py") if "text_format" in path.read_text("utf-8")]
    assert [path.relative_to(package).as_posix() for path in users] == ["models/pipeline_config.py"]
