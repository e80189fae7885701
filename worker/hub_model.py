"""The child that downloads a base model, so that a download can be ended between any two bytes."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from core.errors import DISK_FAULTS
from core.parent import die_with_parent
from models import catalogue
from models.catalogue import BaseModel, ModelUnavailable


def main() -> None:
    die_with_parent(int(sys.argv[1]))
    request = json.load(sys.stdin)
    model = BaseModel(request["name"], "hub", revision=request["revision"])
    reply: dict[str, Any]
    try:
        folder = catalogue.download(model, Path(request["cache"]), request["files"])
        reply = {"path": str(folder)}
    except ModelUnavailable as error:
        reply = {"unavailable": str(error)}
    except OSError as error:
        if error.errno not in DISK_FAULTS:
            raise
        reply = {"errno": error.errno}
    json.dump(reply, sys.stdout)


if __name__ == "__main__":
    main()
