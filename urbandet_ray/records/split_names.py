"""What the folders of a data set's three parts may be called, in small or capital letters."""

from __future__ import annotations

SPLIT_NAMES = {
    "train": ("train", "training"),
    "val": ("val", "valid", "validation", "eval"),
    "test": ("test", "testing"),
}


def split_of(path: str) -> str:
    """The part that a file belongs to by its path below the data folder; "" for none."""
    folder, slash, _ = path.partition("/")
    named = (name for name, known in SPLIT_NAMES.items() if slash and folder.lower() in known)
    return next(named, "")
