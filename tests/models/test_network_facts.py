"""What a network says of itself, without any runtime."""

import pytest

from urbandet_ray.models.network import Accuracy, NetworkFacts, Precision, Resizing


@pytest.mark.parametrize(
    ("precision", "found", "reference", "objection"),
    [
        ("f32", 0.0, 0.0, None),
        ("fp16", 0.2985, 0.3, None),
        ("fp16", 0.297, 0.3, "fp16 costs 0.003 mAP, allowed are 0.002"),
        ("int8", 0.291, 0.3, None),
        ("int8", 0.0, 0.02, "int8 costs 0.020 mAP, allowed are 0.01"),
        ("int8", 0.0, 0.009, "f32 itself finds next to nothing in val (mAP 0.009), which shows"),
        ("bf16", 0.0, 0.0, "f32 itself finds next to nothing in val"),
    ],
)
def test_a_precision_is_held_to_its_gate(
    precision: Precision, found: float, reference: float, objection: str | None
) -> None:
    """And a comparison to something that can be lost: wrong labels would let everything pass."""
    facts = NetworkFacts(
        runtime="openvino",
        precision=precision,
        answers="raw",
        resizing=Resizing(64, 64),
        rules=None,
        accuracy=Accuracy(found, reference, 100, "val"),
    )
    told = facts.objection()
    assert told == objection or (told and objection and told.startswith(objection))
