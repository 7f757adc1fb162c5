"""The table of suspects: all photos with a label, those whose label is most probably wrong first, and why."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Iterator, Sequence

import numpy as np

from configs.counts import counted
from configs.csv_text import LABEL_SEPARATOR, csv_text
from insight.data.embedded_photos import EmbeddedPhotos
from insight.label_errors.judge import Judgement

SUSPECTS_NAME = "suspects.csv"
COLUMNS = (
    "image_uri",
    "image_sha256",
    "label",
    "proposed_label",
    "wrong",
    "label_score",
    "proposed_score",
    "neighbours_for",
    "neighbours_against",
    "twin_label",
    "why",
)
# Neighbours that are named, of those that vouch.
_NAMED_NEIGHBOURS = 5


@dataclasses.dataclass(frozen=True, kw_only=True)
class Suspect:
    """What is said of one photo.

    Attributes:
      row: the photo.
      labels: its labels.
      proposal: the most probable label that it does not have.
      wrong: the probability that its labels are wrong, in [0, 1]; None if it cannot be judged.
      label_score: what heads and neighbours that did not see the photo give its labels together.
      proposal_score: what they give the proposal.
      neighbours: the nearest photos of other groups.
      neighbours_for: how many of them have a label of the photo.
      neighbours_against: how many of them do not.
      twin_labels: labels that other photos of its group have and it does not.
      why: in words.
    """

    row: int
    labels: tuple[str, ...]
    proposal: str
    wrong: float | None
    label_score: float
    proposal_score: float
    neighbours: tuple[int, ...]
    neighbours_for: int
    neighbours_against: int
    twin_labels: tuple[str, ...]
    why: str


def suspects(photos: EmbeddedPhotos, judgement: Judgement, groups: np.ndarray) -> Iterator[Suspect]:
    """What is said of each photo, the most suspicious one first.

    Args:
      photos: n photos with at least one label each.
      judgement: of their labels.
      groups: int64, shape [n]: the number of the group of each photo.
    """
    twins = _labels_of_groups(photos, groups)
    for row in judgement.order.tolist():
        labels = photos.labels_of(row)
        own = (
            [photos.labels.index(label) for label in labels] if len(labels) > 1 else [int(photos.first_label_ids[row])]
        )
        yield _suspect(photos, judgement, row, labels, own, twins.get(int(groups[row]), Counter()))


def _labels_of_groups(photos: EmbeddedPhotos, groups: np.ndarray) -> dict[int, Counter[str]]:
    """How often each label is in each group of several photos."""
    numbers, counts = np.unique(groups, return_counts=True)
    several = np.flatnonzero(np.isin(groups, numbers[counts > 1]))
    found: dict[int, Counter[str]] = {}
    for row in several.tolist():
        found.setdefault(int(groups[row]), Counter()).update(photos.labels_of(row))
    return found


def _suspect(
    photos: EmbeddedPhotos,
    judgement: Judgement,
    row: int,
    labels: Sequence[str],
    own: Sequence[int],
    labels_of_group: Counter[str],
) -> Suspect:
    scores, unseen = judgement.scores[row].copy(), judgement.unseen_scores[row]
    scores[list(own)] = -1
    proposal = int(scores.argmax())
    neighbours = [int(other) for other in judgement.neighbours[row] if other >= 0]
    agree = sum(not set(labels).isdisjoint(photos.labels_of(other)) for other in neighbours)
    twin_labels = tuple(sorted(set(labels_of_group) - set(labels)))
    wrong = None if np.isnan(judgement.wrong[row]) else float(judgement.wrong[row])
    suspect = Suspect(
        row=row,
        labels=tuple(labels),
        proposal=photos.labels[proposal],
        wrong=wrong,
        label_score=float(unseen[list(own)].sum()),
        proposal_score=float(unseen[proposal]),
        neighbours=tuple(neighbours),
        neighbours_for=agree,
        neighbours_against=len(neighbours) - agree,
        twin_labels=twin_labels,
        why="",
    )
    return dataclasses.replace(suspect, why=_why(photos, suspect))


def _why(photos: EmbeddedPhotos, suspect: Suspect) -> str:
    said = LABEL_SEPARATOR.join(suspect.labels)
    if suspect.wrong is None:
        return f"not judged: no photo of another group is labelled '{said}', so nothing can vouch for it"
    reasons = [
        f"heads and neighbours that did not see this label give '{suspect.proposal}' "
        f"{100 * suspect.proposal_score:.0f}% and '{said}' {100 * suspect.label_score:.0f}%"
    ]
    if suspect.neighbours:
        of_proposal = sum(suspect.proposal in photos.labels_of(other) for other in suspect.neighbours)
        reasons.append(
            f"of the {counted(len(suspect.neighbours), 'nearest photo')}, {_have(suspect.neighbours_for)} the "
            f"label '{said}' and {_have(of_proposal)} '{suspect.proposal}'"
        )
    if suspect.twin_labels:
        reasons.append(f"a copy of this photo has the label '{LABEL_SEPARATOR.join(suspect.twin_labels)}'")
    return "; ".join(reasons)


def _have(count: int) -> str:
    return f"{count} has" if count == 1 else f"{count} have"


def suspects_csv(photos: EmbeddedPhotos, found: Sequence[Suspect]) -> str:
    """The table as CSV: a line for each suspect, in order. Probabilities have four decimals."""
    return csv_text(COLUMNS, (_line(photos, suspect) for suspect in found))


def _line(photos: EmbeddedPhotos, suspect: Suspect) -> list[object]:
    against = [
        f"{photos.uris[other]} ({LABEL_SEPARATOR.join(photos.labels_of(other))})"
        for other in suspect.neighbours
        if set(suspect.labels).isdisjoint(photos.labels_of(other))
    ]
    return [
        photos.uris[suspect.row],
        photos.digest_of(suspect.row) or "",
        LABEL_SEPARATOR.join(suspect.labels),
        suspect.proposal,
        "" if suspect.wrong is None else f"{suspect.wrong:.4f}",
        f"{suspect.label_score:.4f}",
        f"{suspect.proposal_score:.4f}",
        suspect.neighbours_for,
        LABEL_SEPARATOR.join(against[:_NAMED_NEIGHBOURS]),
        LABEL_SEPARATOR.join(suspect.twin_labels),
        suspect.why,
    ]
