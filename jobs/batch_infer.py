"""Batch inference as a Ray job.

ray job submit --working-dir . -- python jobs/batch_infer.py configs/runs/infer.yaml \
    input=s3://bucket/test output=s3://bucket/runs/test
"""

import sys
from functools import partial

from urbandet_ray.config import InferConfig
from urbandet_ray.entrypoints.script import run_job


def main(arguments: list[str]) -> int:
    """Run it; exit code 0 all done, 3 done with dead letters, 1 failed."""
    from urbandet_ray.commands.display import infer_progress
    from urbandet_ray.commands.infer import infer

    log = partial(print, flush=True)

    def work(config: InferConfig) -> tuple[str, int]:
        with infer_progress() as on_progress:
            report = infer(config, on_progress=on_progress, say=log)
        return report.to_text(), report.exit_code

    return run_job(InferConfig, arguments, work)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
