"""What the views of the training images brought, in words, for the console and the page."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from configs.counts import counted
from trainer.data.set_views import describe_views, views_of_metrics

_SET_NAMES = {"test": "the test set", "eval": "the evaluation set"}


def _points(share: float) -> str:
    return f"{100 * share:+.1f}"


def gain_words(found: Mapping[str, Any], name: str, *, num_seeds: int, left_out: int) -> str:
    """A sentence about one data set.

    Args:
      found: `view_gain.eval` or `view_gain.test` of metrics.json.
      name: "eval" or "test".
      num_seeds: how many pairs of heads were trained.
      left_out: examples that were not measured, because other sets have them too.
    """
    low, high = found["interval"]
    numbers = (
        f"{100 * found['with_views']:.1f}% with them and {100 * found['with_view_0']:.1f}% without, "
        f"difference {_points(found['gain'])} points, 95% interval {_points(low)} to {_points(high)}, "
        f"{num_seeds} seeds"
    )
    if left_out:
        numbers += f", without the {counted(left_out, 'shared image')}"
    where = f"on {_SET_NAMES[name]}"
    if found["brought"] == "nothing":
        return f"The views brought nothing that can be told from chance {where} ({numbers})."
    verb = "improved" if found["brought"] == "more" else "worsened"
    return f"The views {verb} the accuracy {where} ({numbers})."


def views_words(metrics: Mapping[str, Any]) -> list[str]:
    """Sentences about the views that a training used; none if each image has one.

    Args:
      metrics: as in metrics.json.
    """
    used = metrics.get("views")
    if used is None:
        return []
    views = describe_views(views_of_metrics(used))
    if not used["drawn"]:
        return [f"The training images have {views}; only view 0, the undistorted one, was used (--no-draw_views)."]
    sentences = [f"The training images have {views}; each step drew one of them."]
    gain = metrics.get("view_gain")
    if gain is None:
        return [*sentences, "What the views brought was not measured (--no-compare_views)."]
    sentences += [
        gain_words(gain[name], name, num_seeds=len(gain["seeds"]), left_out=gain["left_out"][name])
        for name in _SET_NAMES
        if name in gain
    ]
    if gain["train_examples"] < metrics["train"]["examples"]:
        sentences.append(
            f"This was measured with {counted(gain['train_examples'], 'training image')}, drawn at random."
        )
    return sentences
