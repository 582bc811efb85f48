"""What a model's weights start from: the OD API's kinds of restoring, and heads by name."""

from urbandet_ray.training.finetune.report import FineTuneReport, PartCount
from urbandet_ray.training.finetune.restore import restore_for_finetuning

__all__ = ["FineTuneReport", "PartCount", "restore_for_finetuning"]
