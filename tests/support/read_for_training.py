"""Runs `hugs train` up to where training begins: what the command names is read then, and the rest is as always."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest

from trainer import task


class _Begun(Exception):
    """Training would begin now."""


def read_for_training(words: Sequence[str]) -> dict[str, Any]:
    """The datasets that a training with these arguments begins with, by their names, corrected."""

    def begin(options: Any, data: dict[str, Any], *_: Any, **__: Any) -> None:
        raise _Begun(data)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(task, "_train", begin)
        with pytest.raises(_Begun) as caught:
            task.main(list(words))
    return caught.value.args[0]
