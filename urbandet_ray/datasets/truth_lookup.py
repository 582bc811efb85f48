"""Labels for the frames of a run, where the two know each other by file names alone."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import Generic, TypeVar

from urbandet_ray.errors import InputError
from urbandet_ray.phrases import printable, some_of
from urbandet_ray.records.image_headers import IMAGE_SUFFIXES
from urbandet_ray.records.sources import safe_name

Labels = TypeVar("Labels")
_SHOWN = 3


@dataclass
class NameLookup(Generic[Labels]):
    """Finds what is known of a frame by its key.

    Attributes:
        known: by name: a path with or without a picture's ending.
        unknown: keys that were asked for and not found.
        found: names that were found, each once.
    """

    known: Mapping[str, Labels]
    unknown: list[str] = field(default_factory=list)
    found: set[str] = field(default_factory=set)

    def __post_init__(self) -> None:
        self._by_stem: dict[str, list[str]] = defaultdict(list)
        for name in self.known:
            self._by_stem[_bare(name).rpartition("/")[2]].append(name)

    def find(self, key: str, source: str) -> Labels | None:
        """What is known under a key; None, and counted, where nothing is.

        The name that ends like the key, or the key like the name; else the only one of that file
        name; of several, the one whose folder is the run's source.

        Args:
            key: of a frame, such as `val2017/000001`.
            source: name of the run's source, which is its folder or file.

        Raises:
            InputError: several names could be meant, or the same one was found for another frame.
        """
        bare = _bare(key)
        alike = self._by_stem.get(bare.rpartition("/")[2], [])
        best = [name for name in alike if _ends_alike(_bare(name), bare)] or alike
        if len(best) > 1:
            folders = {name: safe_name(name.rpartition("/")[0] or ".") for name in best}
            best = [name for name in best if folders[name].endswith(source)] or best
        if not best:
            self.unknown.append(key)
            return None
        if len(best) > 1 or best[0] in self.found:
            raise InputError(
                f"frame {key} of {source} could be any of {some_of(best, _SHOWN)} in the truth"
                + (", which another frame is already" if len(best) == 1 else "")
                + ": give a truth whose files and folders are named as the run's input"
            )
        self.found.add(best[0])
        return self.known[best[0]]


def _bare(name: str) -> str:
    name = printable(name)
    suffix = PurePosixPath(name).suffix
    return name[: -len(suffix)] if suffix.lower() in IMAGE_SUFFIXES else name


def _ends_alike(one: str, other: str) -> bool:
    return f"/{one}".endswith(f"/{other}") or f"/{other}".endswith(f"/{one}")
