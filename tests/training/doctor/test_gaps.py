"""What the doctor once passed over: TF1's names and settings, records of another kind, masks."""

import re
from collections.abc import Callable
from pathlib import Path

import pytest

from urbandet_ray.commands.doctor import Diagnosis, diagnose
from urbandet_ray.models.zoo import model_config_path
from urbandet_ray.training.doctor.correction import correct
from urbandet_ray.training.doctor.findings import Finding

pytestmark = pytest.mark.train

Doctor = Callable[..., Diagnosis]
EXTRACTOR = 'type: "ssd_mobilenet_v2_fpn_keras"'
FPN = "fpn { min_level: 3 max_level: 7 additional_layer_depth: 32 }"


def only(found: Diagnosis, code: str) -> Finding:
    """The one finding with a code."""
    (finding,) = [finding for finding in found.findings if finding.code == code]
    return finding


@pytest.mark.parametrize(
    ("name", "meant", "why"),
    [
        ("ssd_mobilenet_v2", "ssd_mobilenet_v2_keras", "same network"),
        ("ssd_inception_v2", "ssd_mobilenet_v2_keras", "nearest in size"),
        ("ssd_mobilenet_v3_large", "ssd_mobilenet_v2_keras", "nearest in size"),
        ("embedded_ssd_mobilenet_v1", "ssd_mobilenet_v1_keras", "nearest in size"),
        ("ssd_efficientdet_d3", "ssd_efficientnet-b3_bifpn_keras", "same network"),
    ],
)
def test_tf1_extractors_of_an_ssd(doctor: Doctor, name: str, meant: str, why: str) -> None:
    """Mapped by what the network is, not by how its name is spelled."""
    finding = only(doctor((EXTRACTOR, f'type: "{name}"'), (FPN, "")), "unknown-feature-extractor")
    assert finding.fix.startswith(f'type: "{meant}"')
    assert why in finding.fix


@pytest.mark.parametrize(
    "name", ["ssd_mobilenet_v2_fpn", "ssd_mobilenet_v2", "ssd_mobilenet_edgetpu"]
)
def test_the_pyramid_of_the_file_counts(doctor: Doctor, name: str) -> None:
    """With an fpn block it is the network with an FPN."""
    finding = only(doctor((EXTRACTOR, f'type: "{name}"')), "unknown-feature-extractor")
    assert finding.fix.startswith(EXTRACTOR)


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("faster_rcnn_inception_v2", "faster_rcnn_resnet50_keras"),
        ("faster_rcnn_resnet101", "faster_rcnn_resnet101_keras"),
        ("faster_rcnn_nas", "faster_rcnn_inception_resnet_v2_keras"),
        ("faster_rcnn_inception_resnet_v2", "faster_rcnn_inception_resnet_v2_keras"),
    ],
)
def test_tf1_extractors_of_a_faster_rcnn(tmp_path: Path, name: str, meant: str) -> None:
    """Inception v2 is a network of ResNet-50's size; by spelling it was the largest there is."""
    text = model_config_path("faster_rcnn_resnet50_v1_640").read_text()
    path = tmp_path / "pipeline.config"
    path.write_text(text.replace("faster_rcnn_resnet50_keras", name))
    assert only(diagnose(path), "unknown-feature-extractor").fix.startswith(f'type: "{meant}"')


@pytest.mark.parametrize("name", ["resnet50_v1_fpn", "center_net_resnet_v1_50_fpn"])
def test_extractors_of_a_centernet(tmp_path: Path, name: str) -> None:
    """The same words in another order."""
    text = model_config_path("centernet_resnet50_v1_fpn_640").read_text()
    path = tmp_path / "pipeline.config"
    path.write_text(re.sub("type: .resnet_v1_50_fpn.", f'type: "{name}"', text))
    assert 'type: "resnet_v1_50_fpn"' in only(diagnose(path), "unknown-feature-extractor").fix


@pytest.mark.parametrize(
    "model", ["experimental_model { name: 'x' }", "", "experimental_model { }"]
)
def test_a_meta_architecture_that_nobody_builds(tmp_path: Path, model: str) -> None:
    """A finding, and no traceback."""
    path = tmp_path / "pipeline.config"
    path.write_text(f"model {{ {model} }}\ntrain_config {{ batch_size: 2 num_steps: 5 }}\n")
    code = "unknown-meta-architecture" if model else "no-model"
    assert only(diagnose(path), code).severity == "error"
    assert correct(diagnose(path).examination).pipeline


@pytest.mark.parametrize(
    "rewriter",
    [
        "quantization { delay: 1800 weight_bits: 8 activation_bits: 8 }",
        "quantization { symmetric: true }",
        "",
    ],
)
def test_graph_rewriter_does_nothing(doctor: Doctor, rewriter: str) -> None:
    """TF2 trains in float32 whatever it says; --fix leaves it out."""
    found = doctor(("eval_config {", f"graph_rewriter {{ {rewriter} }}\neval_config {{"))
    assert "exported in float32" in only(found, "rewrites-nothing").what
    assert not correct(found.examination).pipeline.message.HasField("graph_rewriter")


def test_sequence_examples(doctor: Doctor) -> None:
    """Where the records hold single frames, that is what is read."""
    found = doctor(("train_input_reader {", "train_input_reader { input_type: TF_SEQUENCE_EXAMPLE"))
    finding = only(found, "sequence-examples")
    assert finding.place == "train_input_reader.input_type"
    reader = correct(found.examination).pipeline.message.train_input_reader
    assert reader.DESCRIPTOR.fields_by_name["input_type"].enum_type.values_by_number[
        reader.input_type
    ].name == "TF_EXAMPLE"  # fmt: skip


def test_masks_that_no_record_has(tmp_path: Path, data: Path) -> None:
    """The mask head would stay at its random start."""
    text = model_config_path("mask_rcnn_inception_resnet_v2_640").read_text()
    path = tmp_path / "pipeline.config"
    path.write_text(text.replace("number_of_stages: 2", "number_of_stages: 3"))
    finding = only(diagnose(path, data=str(data)), "masks-missing")
    assert finding.place == "model.faster_rcnn.number_of_stages"
    path.write_text(text)
    codes = [one.code for one in diagnose(path, data=str(data)).findings]
    assert "masks-missing" not in codes


@pytest.mark.parametrize("scales", ["1.0", "10.0", "7.0"])
def test_both_codings_of_efficientdet_are_right(doctor: Doctor, scales: str) -> None:
    """The OD API's own configs have 10/10/5/5, the zoo's archives 1/1/1/1."""
    half = float(scales) / (2 if float(scales) > 1 else 1)
    found = doctor(
        (EXTRACTOR, 'type: "ssd_efficientnet-b0_bifpn_keras"'),
        (FPN, "bifpn { min_level: 3 max_level: 7 num_iterations: 3 num_filters: 64 }"),
        ("y_scale: 10.0 x_scale: 10.0 height_scale: 5.0 width_scale: 5.0",
         f"y_scale: {scales} x_scale: {scales} height_scale: {half} width_scale: {half}"),
    )  # fmt: skip
    assert "box-coder-scales" not in [one.code for one in found.findings]


def test_bifpn_of_an_efficientdet_is_complete(doctor: Doctor) -> None:
    """An fpn block under EfficientDet becomes the bifpn of that size, with all it needs."""
    found = doctor((EXTRACTOR, 'type: "ssd_efficientnet-b1_bifpn_keras"'))
    only(found, "wrong-pyramid-block")
    after = correct(found.examination).pipeline.message.model.ssd.feature_extractor
    assert (after.bifpn.num_iterations, after.bifpn.num_filters) == (4, 88)


def test_layers_of_an_ssd_s_anchors(doctor: Doctor) -> None:
    """As many as the network has maps."""
    generator = "ssd_anchor_generator { num_layers: 4 min_scale: 0.2 max_scale: 0.95 }"
    text = (EXTRACTOR, 'type: "ssd_mobilenet_v2_keras"'), (FPN, "")
    found = doctor(*text)
    assert "on 5 maps, ssd_mobilenet_v2_keras gives 6" in only(found, "anchor-levels").what
    path = Path(found.config)
    start = path.read_text().index("multiscale_anchor_generator")
    end = path.read_text().index("}", start) + 1
    path.write_text(path.read_text()[:start] + generator + path.read_text()[end:])
    again = diagnose(path)
    assert only(again, "anchor-levels").fix == "num_layers: 6"
    fixed = correct(again.examination).pipeline.message.model.ssd.anchor_generator
    assert fixed.ssd_anchor_generator.num_layers == 6
