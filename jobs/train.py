"""Training as a Ray job.

ray job submit --working-dir . -- python jobs/train.py configs/runs/train-mobilenet-640.yaml \
    data=s3://bucket/waymo output=s3://bucket/runs/mobilenet workers.count=4 workers.gpus=1
"""

import sys

from urbandet_ray.config import TrainConfig
from urbandet_ray.entrypoints.script import run_job


def main(arguments: list[str]) -> int:
    """Run it; exit code 0 done, 1 failed (repeat it: it resumes)."""
    from urbandet_ray.commands.display import show_findings, train_progress
    from urbandet_ray.commands.train import train

    def work(config: TrainConfig) -> tuple[str, int]:
        with train_progress() as on_notice:
            report = train(config, on_notice=on_notice, on_findings=show_findings)
        return report.to_text(), 0

    return run_job(TrainConfig, arguments, work)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
