"""Whether an example has one label or may have several: a softmax over the labels, or a sigmoid for each."""

from __future__ import annotations

from typing import Literal

LabelMode = Literal["single", "multi"]
