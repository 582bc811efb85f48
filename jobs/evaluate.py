"""Evaluation of a run as a Ray job.

ray job submit --working-dir . -- python jobs/evaluate.py configs/runs/eval.yaml \
    run=s3://bucket/runs/test truth=s3://bucket/test
"""

import sys

from urbandet_ray.config import EvalConfig
from urbandet_ray.entrypoints.script import run_job


def main(arguments: list[str]) -> int:
    """Run it; exit code 0 or 1."""
    from urbandet_ray.commands.evaluate import evaluate

    return run_job(EvalConfig, arguments, lambda config: (evaluate(config).to_text(), 0))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
