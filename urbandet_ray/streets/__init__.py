"""Synthetic streets: seeded short drives seen from a car's front camera, with exact boxes."""

from urbandet_ray.streets.drive import drive_frames, render_drive, write_drives

__all__ = ["drive_frames", "render_drive", "write_drives"]
