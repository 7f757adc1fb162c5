"""What to tell people about labels that are not in the dictionary."""

from __future__ import annotations

import re

from configs.errors import did_you_mean
from preprocess.lists.labels import LabelDict

# Searching the nearest spelling among 20,000 labels takes a third of a second. A list may have millions of rows whose
# labels are unknown, so only the first few labels of a list get this search; the others are looked up by their letters.
_MAX_SEARCHES = 3
# The number of labels whose message is kept, so that it is made once for each label and not for each row.
_MAX_KEPT = 50_000


class UnknownLabelHints:
    """Messages about the unknown labels of one list. They depend on the list and the dictionary only.

    Args:
      labels: the dictionary.
    """

    def __init__(self, labels: LabelDict):
        self._labels = labels
        self._messages: dict[str, str] = {}
        self._searches_left = _MAX_SEARCHES
        self._by_letters: dict[str, str] | None = None

    def message(self, label: str) -> str:
        """One sentence, or two with the spelling that may be meant."""
        message = self._messages.get(label)
        if message is None:
            message = f"Label {label!r} is not in the dictionary.{self._meant(label)}"
            if len(self._messages) < _MAX_KEPT:
                self._messages[label] = message
        return message

    def _meant(self, label: str) -> str:
        if self._searches_left:
            self._searches_left -= 1
            return did_you_mean(label, self._labels.names)
        if self._by_letters is None:
            self._by_letters = {_letters(name): name for name in self._labels.names}
        same_letters = self._by_letters.get(_letters(label))
        return "" if same_letters is None else f" Did you mean {same_letters!r}?"

    def refusal(self, label: str, *, is_first: bool) -> str:
        """The message that stops a job, with what to do.

        Args:
          label: the unknown label.
          is_first: whether it stands in the first row, which may name the columns.
        """
        advice = "Correct the list or the dictionary, or pass --unknown_labels=skip or --unknown_labels=unlabeled."
        parts = [part.strip() for part in re.split(r"[|;,/\s]+", label) if part.strip()]
        if len(parts) > 1 and all(self._labels.id_of(part) is not None for part in parts):
            advice = f"It holds {len(parts)} labels: write each of them into a column of its own."
        elif (number := label.partition(".0")[0]) != label and self._labels.id_of(number) is not None:
            advice = f"pandas writes {number!r} so if other cells of the column are empty: write {number}."
        elif label.isdecimal():
            advice = "The dictionary names labels and does not number them: write names into the list."
        elif is_first:
            advice = f"If the first line names the columns, call them image_uri and label. Otherwise {_lower(advice)}"
        return f"{self.message(label)} {advice}"


def _letters(label: str) -> str:
    return re.sub(r"[\W_]+", "", label.casefold())


def _lower(sentence: str) -> str:
    return sentence[0].lower() + sentence[1:]
