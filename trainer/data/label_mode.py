"""The label mode: an example has one label (a softmax over the labels), or may have several (a sigmoid for each)."""

from __future__ import annotations

from typing import Literal

LabelMode = Literal["single", "multi"]
