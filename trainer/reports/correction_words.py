"""What corrections changed and brought, in words, for the console and the page."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from configs.counts import counted
from trainer.data.corrected import LEDGER_NAME, counts_in_words

_SET_NAMES = {"test": "the test set", "eval": "the evaluation set"}


def correction_words(metrics: Mapping[str, Any]) -> list[str]:
    """Sentences about the corrections of a run; none if it has none.

    Args:
      metrics: as in metrics.json.
    """
    found = metrics.get("corrections")
    if found is None:
        return []
    sentences = [f"{found['file']}: {counts_in_words(found['records'])}. Each is in {LEDGER_NAME}."]
    gain = found.get("gain")
    if gain is None:
        return sentences
    for name, words in _SET_NAMES.items():
        if name in gain:
            low, high = (f"{100 * end:+.1f}" for end in gain[name]["interval"])
            verdict = {
                "more": f"The corrections improved the accuracy on {words}",
                "less": f"The corrections lowered the accuracy on {words}",
                "nothing": f"The corrections brought nothing that can be told from chance on {words}",
            }[gain[name]["brought"]]
            sentences.append(
                f"{verdict}: {100 * gain[name]['before']:.1f}% before, {100 * gain[name]['after']:.1f}% after "
                f"(difference {100 * gain[name]['gain']:+.1f} points, 95% interval {low} to {high}, "
                f"{counted(len(gain['seeds']), 'seed')}; both measured with the corrected labels)."
            )
    return sentences
