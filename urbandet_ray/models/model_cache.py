"""Where a user's downloaded models lie on this machine."""

from __future__ import annotations

import os
from pathlib import Path


def cache_folder() -> Path:
    """Where downloaded models are kept: $XDG_CACHE_HOME/urbandet, else ~/.cache/urbandet."""
    base = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    return Path(base) / "urbandet" / "models"
