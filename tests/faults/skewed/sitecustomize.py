"""Python's start-up hook of a process whose clock is off by LUTHIER_FAULTS_SKEW seconds."""

from __future__ import annotations

import datetime
import os
import sys
import time

SKEW = float(os.environ["LUTHIER_FAULTS_SKEW"])
_time, _time_ns, _datetime = time.time, time.time_ns, datetime.datetime


class _Skewed(_datetime):
    @classmethod
    def now(cls, tz: datetime.tzinfo | None = None) -> datetime.datetime:
        return _datetime.now(tz) + datetime.timedelta(seconds=SKEW)


time.time = lambda: _time() + SKEW
time.time_ns = lambda: _time_ns() + int(SKEW * 1e9)
datetime.datetime = _Skewed  # type: ignore[misc]
print(f"the clock is off by {SKEW:.0f} s", file=sys.stderr)
