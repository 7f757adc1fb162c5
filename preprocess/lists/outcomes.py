"""The outcomes of a row that does not become a record: a failure with a reason, or a skip with a rule."""

from __future__ import annotations

import dataclasses
from typing import Literal

Stage = Literal["parse", "read", "decode", "embed"]

# Skip rules. A row is skipped because the user's options or the file format say so. That is not a fault.
SKIP_BLANK_LINE = "blank_line"
SKIP_HEADER = "header"
SKIP_UNKNOWN_LABEL = "unknown_label"


class RowFailure(Exception):  # noqa: N818 (it is the outcome of one row, not an error of the program)
    """The failure of one row: it cannot become a record. Other rows are not affected.

    Attributes:
      stage: where it failed: "parse", "read", "decode" or "embed".
      reason: one snake_case word, counted in the report.
      message: one line for the person who reads the dead letters.
    """

    def __init__(self, stage: Stage, reason: str, message: str):
        super().__init__(stage, reason, message)
        self.stage = stage
        self.reason = reason
        self.message = " ".join(message.split())


@dataclasses.dataclass(frozen=True, slots=True)
class RowSkip:
    """The skip of one row that a rule leaves out: the name of the rule, and one line that says why."""

    rule: str
    message: str
