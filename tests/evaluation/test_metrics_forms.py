"""Metrics as JSON and as a table."""

import json

from urbandet_ray.evaluation import ClassMetrics, Metrics, SizeMetrics

METRICS = Metrics(
    frames=12,
    truth_boxes=30,
    detections=41,
    max_detections=100,
    map=0.123456,
    ap50=0.25,
    ap75=0.1,
    ar1=0.05,
    ar10=0.2,
    ar100=0.3,
    by_size={
        "small": SizeMetrics(0.01, 0.02),
        "medium": SizeMetrics(0.2, 0.3),
        "large": SizeMetrics(None, None),
    },
    by_class={
        "vehicle": ClassMetrics(
            0.123456, 0.25, 0.3, 30, 40, {"small": 0.01, "medium": 0.2, "large": None}
        ),
        "cyclist": ClassMetrics(
            None, None, None, 0, 1, {"small": None, "medium": None, "large": None}
        ),
    },
)


def test_dict_is_json_with_null_for_no_truth() -> None:
    """The dict survives strict JSON; figures without truth are null."""
    back = json.loads(json.dumps(METRICS.to_dict(), allow_nan=False))
    assert back["map"] == 0.123456
    assert back["by_size"]["large"] == {"ap": None, "ar": None}
    assert back["by_class"]["cyclist"]["ap"] is None
    assert back["by_class"]["vehicle"]["ap_by_size"]["medium"] == 0.2


def test_text_is_an_aligned_table() -> None:
    """What a terminal shows: three decimals, a dash for no truth."""
    assert METRICS.to_text() == (
        "12 frames, 30 truth boxes, 41 detections\n"
        "mAP 0.123   AP50 0.250   AP75 0.100\n"
        "AR1 0.050   AR10 0.200   AR100 0.300\n"
        "\n"
        "size       AP     AR\n"
        "small   0.010  0.020\n"
        "medium  0.200  0.300\n"
        "large       -      -\n"
        "\n"
        "class    truth  detections     AP   AP50  AR100  AP small  AP medium  AP large\n"
        "vehicle     30          40  0.123  0.250  0.300     0.010      0.200         -\n"
        "cyclist      0           1      -      -      -         -          -         -"
    )
