"""A sound pipeline.config with sound records, and a doctor to show variations of it to."""

import os
from collections.abc import Callable
from pathlib import Path
from zlib import crc32

import numpy as np
import pytest

from urbandet_ray.commands.doctor import Diagnosis, diagnose
from urbandet_ray.frames import Frame, Truth
from urbandet_ray.records.images import encode_jpeg
from urbandet_ray.records.writer import write_frames

# read while tests are collected, so before any of them imports TensorFlow into this process
os.environ.setdefault("TF_USE_LEGACY_KERAS", "1")

NAMES = ("vehicle", "pedestrian", "cyclist")
LABEL_MAP = "".join(f"item {{ id: {n} name: '{name}' }}\n" for n, name in enumerate(NAMES, 1))

SOUND = """\
model {
  ssd {
    num_classes: 3  # vehicle, pedestrian, cyclist
    image_resizer { fixed_shape_resizer { height: 320 width: 320 } }
    feature_extractor {
      type: "ssd_mobilenet_v2_fpn_keras"
      depth_multiplier: 0.25
      use_depthwise: true
      conv_hyperparams { activation: RELU_6 regularizer { l2_regularizer { weight: 4e-5 } }
        initializer { truncated_normal_initializer { } } batch_norm { } }
      fpn { min_level: 3 max_level: 7 additional_layer_depth: 32 }
    }
    box_coder {
      faster_rcnn_box_coder {
        y_scale: 10.0 x_scale: 10.0 height_scale: 5.0 width_scale: 5.0
      }
    }
    matcher { argmax_matcher { matched_threshold: 0.5 unmatched_threshold: 0.5
      force_match_for_each_row: true } }
    similarity_calculator { iou_similarity { } }
    box_predictor {
      weight_shared_convolutional_box_predictor { depth: 32 num_layers_before_predictor: 1
        conv_hyperparams { activation: RELU_6 regularizer { l2_regularizer { weight: 4e-5 } }
          initializer { random_normal_initializer { } } batch_norm { } } }
    }
    anchor_generator {
      multiscale_anchor_generator {
        min_level: 3
        max_level: 7
        anchor_scale: 4.0
        aspect_ratios: [1.0, 2.0, 0.5]
      }
    }
    post_processing { batch_non_max_suppression {
        score_threshold: 1e-8
      } score_converter: SIGMOID }
    loss { classification_loss { weighted_sigmoid_focal { } }
      localization_loss { weighted_smooth_l1 { } } classification_weight: 1
      localization_weight: 1 }
  }
}
train_config {
  batch_size: 2
  num_steps: 100
  data_augmentation_options { random_horizontal_flip { } }
  data_augmentation_options {
    random_scale_crop_and_pad_to_square { output_size: 320 }
  }
  optimizer {
    momentum_optimizer {
      learning_rate {
        cosine_decay_learning_rate {
          learning_rate_base: 0.00125
          total_steps: 100
          warmup_learning_rate: 0.0001
          warmup_steps: 10
        }
      }
    }
    use_moving_average: false
  }
  fine_tune_checkpoint: ""
  fine_tune_checkpoint_type: "detection"
  fine_tune_checkpoint_version: V2
  use_bfloat16: false
}
train_input_reader {
  label_map_path: "{data}/label_map.pbtxt"
  tf_record_input_reader { input_path: "{data}/train/*.tfrecord" }
}
eval_config {
  metrics_set: "coco_detection_metrics"
}
eval_input_reader {
  label_map_path: "{data}/label_map.pbtxt"
  tf_record_input_reader { input_path: "{data}/val/*.tfrecord" }
}
"""

Doctor = Callable[..., Diagnosis]


def _write_segment(
    path: Path, frames: int = 4, class_ids: tuple[int, ...] = (1, 2, 3), side: int = 60
) -> None:
    """Frames of 320 x 320 px with a square box of `side` px for each class."""
    draw = np.random.default_rng(crc32(str(path).encode()))
    lefts = np.arange(len(class_ids)) * 90.0 + 20
    boxes = np.stack([lefts, lefts, lefts + side, lefts + side], axis=1)
    names = tuple(NAMES[min(one, 3) - 1] for one in class_ids)

    def picture() -> bytes:
        pixels = np.full((320, 320, 3), 90, np.uint8)
        pixels[:8, :8] = draw.integers(0, 256, (8, 8, 3))  # no two frames are the same
        return encode_jpeg(pixels, 90)

    def made() -> list[Frame]:
        truth = Truth.of(boxes, class_ids, names)
        return [
            Frame(f"{path.stem}-{n}", path.stem, picture(), "jpeg", (320, 320), truth)
            for n in range(frames)
        ]

    path.parent.mkdir(parents=True, exist_ok=True)
    write_frames(made(), path)


@pytest.fixture
def sound_config() -> str:
    """A pipeline.config without faults, {data} standing for the data folder."""
    return SOUND


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Two training drives and one for validation, with their label map."""
    folder = tmp_path / "data"
    for name in ("train/one", "train/two", "val/three"):
        _write_segment(folder / f"{name}.tfrecord")
    (folder / "label_map.pbtxt").write_text(LABEL_MAP)
    return folder


@pytest.fixture
def doctor(tmp_path: Path, data: Path) -> Doctor:
    """Shows the doctor the sound config with some of its text replaced."""

    def ask(*changes: tuple[str, str], **options: object) -> Diagnosis:
        text = SOUND
        for old, new in changes:
            assert text.count(old) >= 1, f"{old!r} is not in the config"
            text = text.replace(old, new, 1)
        path = tmp_path / "pipeline.config"
        path.write_text(text.replace("{data}", str(data)))
        return diagnose(path, **options)  # type: ignore[arg-type]

    return ask


@pytest.fixture
def write_segment() -> Callable[..., None]:
    """Writes one drive's TFRecord: path, frames, class_ids of each frame's boxes."""
    return _write_segment
