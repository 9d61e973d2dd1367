"""What a learner's notebook uses: `check` an exercise, ask whether it has `passed`, see the `progress`."""

from chargpt_lib.exercises.compare import NotAttempted
from chargpt_lib.exercises.judge import check, passed, progress

__all__ = ["NotAttempted", "check", "passed", "progress"]
