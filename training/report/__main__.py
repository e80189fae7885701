"""`python -m training.report FOLDER`: draw the result files of a job folder into its `report/`.

It stands apart from the trainer, so that nothing that fails or hangs here costs a model. Each file
appears whole or not at all, the plainest first; what cannot be drawn ends it with status 1 and a
last line that says why.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

from core.parent import die_with_parent
from training.report import events, figure, page
from training.report.run import read_run

FOLDER = "report"


def main(folder: Path) -> None:
    run = read_run(folder)
    written = folder / FOLDER
    written.mkdir(exist_ok=True)
    _whole(written / events.name(run), partial(events.write, run))
    picture = written / f"{run.job_id}-report.png"
    _whole(picture, partial(figure.write, run))
    _whole(picture.with_suffix(".html"), partial(page.write, run, picture))


def _whole(path: Path, write: Callable[[Path], None]) -> None:
    part = path.with_name(f".{path.name}.part")
    write(part)
    part.rename(path)


if __name__ == "__main__":
    die_with_parent()
    logging.basicConfig(format="%(levelname)s %(name)s %(message)s", level="WARNING")
    try:
        main(Path(sys.argv[1]))
    except Exception as error:
        logging.exception("The report was not drawn.")
        sys.exit(f"{type(error).__name__}: {error}")
