"""The video of a run as a Ray job.

ray job submit --working-dir . -- python jobs/make_video.py configs/runs/video.yaml \
    run=s3://bucket/runs/test output=s3://bucket/runs/test/drive.mp4
"""

import sys

from urbandet_ray.config import VideoConfig
from urbandet_ray.entrypoints.script import run_job


def main(arguments: list[str]) -> int:
    """Run it; exit code 0 or 1."""
    from urbandet_ray.commands.display import count_progress
    from urbandet_ray.commands.video import make_video

    def work(config: VideoConfig) -> tuple[str, int]:
        with count_progress("frames") as on_frame:
            return make_video(config, on_frame=on_frame).to_text(), 0

    return run_job(VideoConfig, arguments, work)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
