"""Finds images that are in two data sets of a run, such as evaluation images that are training images too.

Two images are the same if their files are equal byte for byte: the records hold the SHA-256 of the files. Records
without this digest (made elsewhere) are compared by their URIs, but only if these are absolute. A relative URI says
nothing without its list: "1.jpg" may be another photo in another folder. Copies that are not equal byte for byte are
known only where the user names the table that `hugs twins` wrote.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from preprocess.records.duplicates import DIGEST_BYTES, find_shared
from preprocess.records.twin_groups import TwinGroups
from preprocess.storage.uris import has_scheme

if TYPE_CHECKING:  # It imports TensorFlow, and the names of files here are needed before that.
    from trainer.data.dataset import LabeledExamples

SHARED_IMAGES_NAME = "shared_images.csv"

# The sets that each held-out set must not share images with. The evaluation set chooses the checkpoint, the temperature
# and the threshold, so images of it are not new for the model either.
_COMPARED = {"eval": ("train",), "test": ("train", "eval")}
SET_WORDS = {"train": "training", "eval": "evaluation", "test": "test"}


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Overlap:
    """The examples of a data set whose image another data set has too.

    Attributes:
      rows: int64 [k], ascending: the examples.
      other_rows: int64 [k]: for each, the first example of the other set with that image.
      by_content: bool [k]: True if the files are equal, False if only the URIs are.
      num_unchecked: how many examples could not be compared with all of the other set.
      is_twin: bool [k]: True if the images are copies of each other by the table of twins, and not equal.
      labels_differ: bool [k]: True if the two examples have different labels.
    """

    rows: np.ndarray
    other_rows: np.ndarray
    by_content: np.ndarray
    num_unchecked: int
    is_twin: np.ndarray
    labels_differ: np.ndarray

    @property
    def num_equal(self) -> int:
        """How many examples have an image that is equal to one of the other set."""
        return int(np.count_nonzero(~self.is_twin))

    @property
    def num_twins(self) -> int:
        """How many examples have an image of which only a copy is in the other set."""
        return int(np.count_nonzero(self.is_twin))


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class SharedImages:
    """The images that a held-out set shares with other sets.

    Attributes:
      name: "eval" or "test".
      num_examples: the size of the held-out set.
      overlaps: by the name of the other set.
      knows_twins: whether the user gave a table of twins.
    """

    name: str
    num_examples: int
    overlaps: Mapping[str, Overlap]
    knows_twins: bool = False

    @property
    def num_twins(self) -> int:
        """How many examples have no equal image in any other set, but a copy."""
        equal = [overlap.rows[~overlap.is_twin] for overlap in self.overlaps.values()]
        return len(np.setdiff1d(self.rows, np.concatenate(equal)))

    @property
    def rows(self) -> np.ndarray:
        """int64, ascending: the examples that any other set has too."""
        return np.unique(np.concatenate([overlap.rows for overlap in self.overlaps.values()]))

    @property
    def num_labels_differ(self) -> int:
        """How many examples have other labels than their image has in another set."""
        return len(np.unique(np.concatenate([over.rows[over.labels_differ] for over in self.overlaps.values()])))

    def to_json(self) -> dict[str, dict[str, int]]:
        """Counts, for metrics.json: for each other set, the `shared` and the `unchecked` examples of this set.

        With a table of twins also the `twins`, which are not among the shared ones. `labels_differ` counts the shared
        ones and the twins whose labels in the other set are others.
        """
        return {
            other: {
                "shared": overlap.num_equal,
                "unchecked": overlap.num_unchecked,
                "labels_differ": int(np.count_nonzero(overlap.labels_differ)),
            }
            | ({"twins": overlap.num_twins} if self.knows_twins else {})
            for other, overlap in self.overlaps.items()
        }


def _known_digests(examples: LabeledExamples) -> np.ndarray:
    """For which examples the digest of the image is known: bool [n]."""
    if examples.image_digests is None:
        return np.zeros(len(examples), bool)
    return np.any(examples.image_digests, axis=1)


def _absolute(examples: LabeledExamples) -> np.ndarray:
    """Which examples have a URI that means the same file wherever it stands: bool [n]."""
    return np.fromiter((uri.startswith("/") or has_scheme(uri) for uri in examples.uris), bool, len(examples))


def _keys(digests: np.ndarray) -> np.ndarray:
    """Digests as byte strings, which NumPy can sort. All have one length, so it may ignore zero bytes at their ends."""
    return np.ascontiguousarray(digests).view(f"S{DIGEST_BYTES}").ravel()


def _pairs_by_content(
    digests: np.ndarray, rows: np.ndarray, others: np.ndarray, other_rows: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Rows of the first set whose digest the second set has, and the first row of the second set that has it."""
    digests, others = digests[rows], others[other_rows]
    found, partners = find_shared(digests, others), find_shared(others, digests)
    keys, first = np.unique(_keys(others[partners]), return_index=True)
    places = first[np.searchsorted(keys, _keys(digests[found]))]
    return rows[found], other_rows[partners[places]]


def _twin_groups(examples: LabeledExamples, twins: TwinGroups) -> dict[int, str]:
    """The group of each example that the table of twins names, by row."""
    found = {}
    if examples.image_digests is not None and twins.by_digest:
        digests = examples.image_digests
        table = np.frombuffer(b"".join(twins.by_digest), np.uint8).reshape(-1, DIGEST_BYTES)
        known = np.flatnonzero(_known_digests(examples))
        for row in known[find_shared(digests[known], table)].tolist():
            found[row] = twins.by_digest[digests[row].tobytes()]
    if twins.by_uri:
        for row in np.flatnonzero(~_known_digests(examples)).tolist():
            if (group := twins.by_uri.get(examples.uris[row])) is not None:
                found[row] = group
    return found


def count_named(examples: LabeledExamples, twins: TwinGroups) -> int:
    """How many examples a table of twins names."""
    return len(_twin_groups(examples, twins))


def find_overlap(examples: LabeledExamples, others: LabeledExamples, twins: TwinGroups | None = None) -> Overlap:
    """Finds the images of one data set that another one has too, or of which it has copies.

    For sets of n and m examples with digests this takes some bytes for each example, besides the data sets.

    Args:
      examples: the data set.
      others: the other one.
      twins: which images are copies of each other; None if that is not known.
    """
    known, other_known = _known_digests(examples), _known_digests(others)
    partner = np.full(len(examples), -1, np.int64)
    by_content = np.zeros(len(examples), bool)
    num_unchecked = 0
    if known.any() and other_known.any():
        assert examples.image_digests is not None and others.image_digests is not None
        rows, other_rows = _pairs_by_content(
            examples.image_digests, np.flatnonzero(known), others.image_digests, np.flatnonzero(other_known)
        )
        partner[rows] = other_rows
        by_content[rows] = True
    if not (known.all() and other_known.all()):
        absolute, other_absolute = _absolute(examples), _absolute(others)
        open_rows = np.flatnonzero(absolute & (partner < 0)).tolist()
        wanted = {examples.uris[row] for row in open_rows}
        first: dict[str, int] = {}
        first_without_digest: dict[str, int] = {}
        for row in np.flatnonzero(other_absolute).tolist():
            if (uri := others.uris[row]) in wanted:
                first.setdefault(uri, row)
                if not other_known[row]:
                    first_without_digest.setdefault(uri, row)
        for row in open_rows:
            # If both digests are known and differ, the file was changed between the two embeddings.
            candidates = first_without_digest if known[row] else first
            partner[row] = candidates.get(examples.uris[row], -1)
        comparable = np.where(
            known,
            other_known.all() | (absolute & (other_known | other_absolute).all()),
            absolute & other_absolute.all(),
        )
        num_unchecked = int(np.count_nonzero(~comparable & (partner < 0)))
    is_twin = np.zeros(len(examples), bool)
    if twins is not None:
        first_of_group: dict[str, int] = {}
        for row, group in _twin_groups(others, twins).items():
            first_of_group[group] = min(row, first_of_group.get(group, row))
        for row, group in _twin_groups(examples, twins).items():
            if partner[row] < 0 and group in first_of_group:
                partner[row] = first_of_group[group]
                is_twin[row] = True
    rows = np.flatnonzero(partner >= 0)
    other_rows = partner[rows]
    pairs = zip(rows.tolist(), other_rows.tolist(), strict=True)
    differ = (set(examples.labels_of(row)) != set(others.labels_of(other)) for row, other in pairs)
    return Overlap(
        rows=rows,
        other_rows=other_rows,
        by_content=by_content[rows],
        num_unchecked=num_unchecked,
        is_twin=is_twin[rows],
        labels_differ=np.fromiter(differ, bool, len(rows)),
    )


def find_shared_images(data: Mapping[str, LabeledExamples], twins: TwinGroups | None = None) -> dict[str, SharedImages]:
    """Compares the held-out sets of a run, "eval" and "test", with the sets that they must not share images with."""
    return {
        name: SharedImages(
            name=name,
            num_examples=len(data[name]),
            overlaps={other: find_overlap(data[name], data[other], twins) for other in others if other in data},
            knows_twins=twins is not None,
        )
        for name, others in _COMPARED.items()
        if name in data
    }


def _consequence(labels_differ: np.ndarray) -> str:
    """What shared images, of which bool [k] says whether their labels differ, do to the accuracy."""
    count, differing = len(labels_differ), int(np.count_nonzero(labels_differ))
    if not differing:
        return "the accuracy looks too good"
    if differing < count:
        words = "1 of them has another label" if differing == 1 else f"{differing} of them have other labels"
        return f"{words} there, so the labels contradict each other, and the accuracy is not that of new images"
    words = "it has another label there" if count == 1 else "all of them have other labels there"
    return f"{words}, so the labels contradict each other, and the accuracy may look too bad"


def shared_image_warnings(shared: Mapping[str, SharedImages], *, look: str = "") -> list[str]:
    """Warnings about images that two sets share, the gravest first; sentences.

    Args:
      shared: what the held-out sets share, by their names.
      look: a command that shows the photos. It is named where labels contradict each other.
    """
    found, copies, unchecked = [], [], []
    for name, images in shared.items():
        for other, overlap in images.overlaps.items():
            these = f"of the {images.num_examples} {SET_WORDS[name]} images"
            if count := overlap.num_twins:
                are = (
                    f"is a copy of one of the {SET_WORDS[other]}" if count == 1 else f"are copies of {SET_WORDS[other]}"
                )
                differ = overlap.labels_differ[overlap.is_twin]
                copies.append(f"{count} {these} {are} images: {_consequence(differ)}. {_where(differ, look)}")
            if count := overlap.num_equal:
                are = (
                    f"is also one of the {SET_WORDS[other]} images"
                    if count == 1
                    else f"are also {SET_WORDS[other]} images"
                )
                differ = overlap.labels_differ[~overlap.is_twin]
                found.append(f"{count} {these} {are}: {_consequence(differ)}. {_where(differ, look)}")
            if overlap.num_unchecked:
                unchecked.append(
                    f"{overlap.num_unchecked} {these} cannot be compared with the {SET_WORDS[other]} images: records "
                    "without image_sha256 are compared by their URIs, and these are relative. If both sets hold the "
                    "same photos, the accuracy is not that of new images"
                )
    return [*found, *copies, *unchecked]


def _where(labels_differ: np.ndarray, look: str) -> str:
    names = f"{SHARED_IMAGES_NAME} names the {'pair' if len(labels_differ) == 1 else 'pairs'}"
    return f"{names}; to look at the photos: {look}" if look and labels_differ.any() else names


def image_numbers(examples: LabeledExamples) -> np.ndarray:
    """A number for each example, int64 [n]. Examples with the same image have the same number.

    Two images are the same if their digests are equal, or, where a digest is not known, their URIs. The numbers are in
    the order of the URIs. Examples with the same URI and different digests may have the same number.
    """
    _, numbers = np.unique(examples.uris, return_inverse=True)
    known = np.flatnonzero(_known_digests(examples))
    if examples.image_digests is not None and len(known):
        keys, group = np.unique(_keys(examples.image_digests[known]), return_inverse=True)
        smallest = np.full(len(keys), len(examples), np.int64)
        np.minimum.at(smallest, group, numbers[known])
        numbers[known] = smallest[group]
    return numbers.astype(np.int64)
