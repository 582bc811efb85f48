"""Every pipeline.config of some folders through the doctor and its --fix: a table.

The OD API's own configs are in its repository, research/object_detection/configs/tf2, and not in
the installed package; configs/models is looked at where no folder is given. Takes 10 to 60 s a
config, since each corrected copy's model is built.

    python bench/official_configs.py ~/models/research/object_detection/configs/tf2
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from pathlib import Path

from urbandet_ray.commands.doctor import diagnose
from urbandet_ray.errors import UrbandetError
from urbandet_ray.models.odapi import open_odapi
from urbandet_ray.models.zoo import model_config_path
from urbandet_ray.tables import text_table
from urbandet_ray.training.doctor.correction import correct, why_unbuildable

_OF_PLACE = {"path-missing", "checkpoint-missing", "batch-too-large", "from-scratch"}
"""What is wrong with these files on this machine alone: paths to be set, its memory."""


def main() -> int:
    """Print the table; 1 where a config ended in an error, or a copy came out worse."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("folders", nargs="*", type=Path)
    parser.add_argument("--data", help="examine with these records")
    parser.add_argument("--no-build", action="store_true", help="do not build the copies' models")
    options = parser.parse_args()
    folders = options.folders or [Path(model_config_path("efficientdet_d1_640")).parent]
    rows, bad = [("config", "findings", "fixed", "not fixed", "the copy", "s")], 0
    for path in sorted(one for folder in folders for one in folder.glob("*.config")):
        start = time.monotonic()
        row, sound = _row(path, options.data, build=not options.no_build)
        bad += not sound
        rows.append((path.stem, *row, f"{time.monotonic() - start:.0f}"))
        print(rows[-1], file=sys.stderr, flush=True)
        open_odapi().tf.keras.backend.clear_session()
    print(text_table(rows))
    return 1 if bad else 0


def _row(path: Path, data: str | None, *, build: bool) -> tuple[tuple[str, str, str, str], bool]:
    """Findings, fixes, refused fixes, what became of the copy; whether all is well."""
    try:
        found = diagnose(path, data=data)
    except UrbandetError as error:
        return (str(error), "-", "-", "-"), False
    told = [one for one in found.findings if one.severity != "note" and one.code not in _OF_PLACE]
    made = correct(found.examination, why_unbuildable if build else None)
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder, "pipeline.config")
        copy.write_text(made.pipeline.to_text(), encoding="utf-8")
        again = diagnose(copy, data=data)
    before = {(one.code, one.place) for one in found.findings}
    new = [one.code for one in again.findings if (one.code, one.place) not in before]
    state = "not built" if not build else made.unbuilt or "built"
    shown = state if not new else f"{state}, new: {' '.join(new)}"
    cells = (
        " ".join(f"{one.severity}:{one.code}" for one in told) or "none",
        " ".join(one.code for one in made.done) or "nothing",
        " ".join(one.finding.code for one in made.refused) or "-",
        shown,
    )
    worse = bool(made.unbuilt) and not why_unbuildable(found.examination.case.pipeline)
    return cells, not new and not worse


if __name__ == "__main__":
    sys.exit(main())
