"""Python's start-up hook of a worker whose trainers are LUTHIER_FAULTS_TRAINER."""

from __future__ import annotations

import os
import sys

sys.executable = os.environ["LUTHIER_FAULTS_TRAINER"]
