"""The table of suspects: all photos with a label, those whose label is most probably wrong first, and why."""

from __future__ import annotations

import dataclasses
import itertools
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence

import numpy as np

from configs.activity import doing
from configs.counts import counted
from configs.csv_text import LABEL_SEPARATOR
from insight.data.embedded_photos import EmbeddedPhotos
from insight.label_errors.judge import Judgement

SUSPECTS_NAME = "suspects.csv"
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


def suspects(
    photos: EmbeddedPhotos, labels: Sequence[tuple[str, ...]], judgement: Judgement, groups: np.ndarray
) -> Iterator[Suspect]:
    """What is said of each photo, the most suspicious one first.

    Args:
      photos: n photos with at least one label each.
      labels: those of each photo, from `all_labels`.
      judgement: of their labels.
      groups: int64, shape [n]: the number of the group of each photo.
    """
    number_of = {name: number for number, name in enumerate(photos.labels)}
    twins = _labels_of_groups(labels, groups)
    for row in judgement.order.tolist():
        yield _suspect(photos, judgement, row, labels, number_of, twins.get(int(groups[row]), Counter()))


def all_labels(photos: EmbeddedPhotos) -> list[tuple[str, ...]]:
    """The names of the labels of each photo. Most photos of a class share one tuple, so a million take little."""
    of_one = [(name,) for name in photos.labels]
    first, counts = photos.first_label_ids.tolist(), photos.label_counts
    found = [of_one[label_id] for label_id in first]
    for row in np.flatnonzero(counts > 1).tolist():
        found[row] = tuple(photos.labels_of(row))
    return found


def _labels_of_groups(labels: Sequence[tuple[str, ...]], groups: np.ndarray) -> dict[int, Counter[str]]:
    """How often each label is in each group of several photos."""
    numbers, counts = np.unique(groups, return_counts=True)
    several = np.flatnonzero(np.isin(groups, numbers[counts > 1]))
    found: dict[int, Counter[str]] = {}
    for row in several.tolist():
        found.setdefault(int(groups[row]), Counter()).update(labels[row])
    return found


def _suspect(
    photos: EmbeddedPhotos,
    judgement: Judgement,
    row: int,
    labels: Sequence[tuple[str, ...]],
    number_of: Mapping[str, int],
    labels_of_group: Counter[str],
) -> Suspect:
    said = labels[row]
    own = [number_of[label] for label in said]
    scores, unseen = judgement.scores[row].copy(), judgement.unseen_scores[row]
    scores[own] = -1
    proposal = int(scores.argmax())
    neighbours = [other for other in judgement.neighbours[row].tolist() if other >= 0]
    agree = sum(not set(said).isdisjoint(labels[other]) for other in neighbours)
    of_proposal = sum(photos.labels[proposal] in labels[other] for other in neighbours)
    wrong = None if np.isnan(judgement.wrong[row]) else float(judgement.wrong[row])
    suspect = Suspect(
        row=row,
        labels=said,
        proposal=photos.labels[proposal],
        wrong=wrong,
        label_score=float(unseen[own].sum()),
        proposal_score=float(unseen[proposal]),
        neighbours=tuple(neighbours),
        neighbours_for=agree,
        neighbours_against=len(neighbours) - agree,
        twin_labels=tuple(sorted(set(labels_of_group) - set(said))),
        why="",
    )
    return dataclasses.replace(suspect, why=_why(suspect, of_proposal))


def _why(suspect: Suspect, of_proposal: int) -> str:
    said = LABEL_SEPARATOR.join(suspect.labels)
    if suspect.wrong is None:
        return f"not judged: no photo of another group is labelled '{said}', so nothing can vouch for it"
    reasons = [
        f"heads and neighbours that did not see this label give '{suspect.proposal}' "
        f"{100 * suspect.proposal_score:.0f}% and '{said}' {100 * suspect.label_score:.0f}%"
    ]
    if suspect.neighbours:
        reasons.append(
            f"of the {counted(len(suspect.neighbours), 'nearest photo')}, {_have(suspect.neighbours_for)} the "
            f"label '{said}' and {_have(of_proposal)} '{suspect.proposal}'"
        )
    if suspect.twin_labels:
        reasons.append(f"a copy of this photo has the label '{LABEL_SEPARATOR.join(suspect.twin_labels)}'")
    return "; ".join(reasons)


def _have(count: int) -> str:
    return f"{count} has" if count == 1 else f"{count} have"


def suspect_lines(
    photos: EmbeddedPhotos, labels: Sequence[tuple[str, ...]], found: Iterable[Suspect]
) -> Iterator[list[object]]:
    """The lines below the header, `SUSPECT_COLUMNS`, one for each suspect. Probabilities have four decimals."""
    with doing("writing the table", total=len(photos), unit="photo") as progress:
        for suspect in found:
            yield _line(photos, labels, suspect)
            progress.advance()


def _line(photos: EmbeddedPhotos, labels: Sequence[tuple[str, ...]], suspect: Suspect) -> list[object]:
    others = (other for other in suspect.neighbours if set(suspect.labels).isdisjoint(labels[other]))
    against = [
        f"{photos.uris[other]} ({LABEL_SEPARATOR.join(labels[other])})"
        for other in itertools.islice(others, _NAMED_NEIGHBOURS)
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
        LABEL_SEPARATOR.join(against),
        LABEL_SEPARATOR.join(suspect.twin_labels),
        suspect.why,
    ]
