"""What identifies a photo, and which photos show one thing: photos of one group are always in one list.

By default a photo is known by its file name, without its folders. Some names say that files are versions of one photo,
or shots of one burst; those have one key. `--group_by` says it for all others.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence

from configs.counts import counted
from configs.errors import InputError
from pipelines.splits.photo_twins import twin_keys
from preprocess.records.twin_groups import TwinGroups, has_twin_columns, parse_groups
from preprocess.storage.base import Storage

NAME, PATH, PARENT = "name", "path", "parent"
# With fewer names than this, each shared by two photos or more, the lists would be far from their percentages.
FEW_NAMES = 50

# Names that say by themselves which photo or burst a file belongs to. The first group that matched is the key.
_SAYS_ITS_GROUP = re.compile(
    r"(.+?)_nohash_.*"  # retrain.py of TensorFlow: what follows makes no difference
    r"|(.+)\.rf\.[0-9A-Za-z]{16,}\.\w+"  # Roboflow: augmented versions of one image
    r"|.+_original_(.+)_[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}\.\w+"  # Augmentor: likewise
    r"|\d+IMG_\d+_(BURST\d{14,}).*"  # Pixel: 00001IMG_00001_BURST20191201103040123.jpg
    r"|(.+)_BURST\d+.*"  # Android: IMG_20200101_120000_BURST001.jpg
    r"|(PXL_\d{8}_\d{9})[.~].+"  # Pixel: PXL_20210101_120000123.RAW-01.COVER.jpg
)
_PLAIN_PIXEL = re.compile(r"PXL_\d{8}_\d{9}")
# What programs add to the name of a copy or an edited version. It is one only if the original lies beside it. People
# number whole collections with "rose (17).jpg", so only the first three numbers count.
_COPY = re.compile(
    r"(?: ?\([1-3]\)|(?: -)? (?:copy|kopie|copie|copia)(?: ?\(?[2-9]\)?)?"
    r"|~[1-9]|[-_](?:edited|bearbeitet|modifi\u00e9))$",
    re.IGNORECASE,
)
_MASK = re.compile(r"[-_ ]masks?(?:[-_ ]?\d+)?$", re.IGNORECASE)
_COPY_OF = re.compile(r"^(?:copy of |kopie von |copie de |copia de )|(?<=^IMG_)E(?=\d{4}$)", re.IGNORECASE)


# What all names that the patterns above match have in them, in lower case: a quick look at each of millions of names.
_SAYS_SOMETHING = re.compile(
    r"[(~]|cop[iy]|kopie|edited|bearbeitet|modifi|mask|_nohash_|\.rf\.|_original_|burst|pxl_|img_e"
)


class PhotoGroups:
    """Gives each photo the key of its group.

    Args:
      group_by: None, "name", "path", "parent", a regular expression, or the path of a CSV file: `photo,group`, or the
        twins.csv of `hugs twins`.
      classes: paths of the photos below the folder of photos, by class folder.
      storage: opens the file.
      read: reads a photo by its path, to find it in twins.csv.

    Attributes:
      by_path: whether paths, not names, identify photos.
      num_photos, num_names: the photos, and how many different names they have.
      chosen_by_path: paths identify photos because there are few names, and not because the user says so.
      num_ungrouped: photos of which `group_by` says nothing.
      num_versions: photos that have the key of another name, as far as `keys` was asked.
      masks: those of them that are named like the mask of another photo, such as a_mask.png beside a.png.

    Raises:
      InputError: `group_by` is wrong, or groups none of the photos.
    """

    def __init__(
        self,
        group_by: str | None,
        classes: Mapping[str, Sequence[str]],
        storage: Callable[[str], Storage],
        read: Callable[[str], bytes],
    ):
        self._classes = classes
        self.num_photos = sum(map(len, classes.values()))
        self.num_names = len({path.rpartition("/")[2] for paths in classes.values() for path in paths})
        few = self.num_names < FEW_NAMES and 2 * self.num_names <= self.num_photos
        self.by_path = group_by == PATH or (few and group_by != NAME)
        self.chosen_by_path = self.by_path and group_by is None
        self.num_versions = 0
        self.masks: list[str] = []
        self._each_by_itself = group_by in (NAME, PATH)
        self.num_ungrouped = 0
        self._twin_keys: dict[str, str] | None = None
        grouping = None if group_by in (None, NAME, PATH) else _grouping(group_by, storage)
        self._group_of = None if isinstance(grouping, TwinGroups) else grouping
        if isinstance(grouping, TwinGroups):
            self._join_twins(grouping, read, path=str(group_by))
        elif self._group_of is not None:
            self._check_that_it_groups(group_by)

    def _join_twins(self, twins: TwinGroups, read: Callable[[str], bytes], *, path: str) -> None:
        photos = (
            (photo, self._key_by_name(photo, version_key))
            for paths in self._classes.values()
            for photo, version_key in zip(paths, _version_keys(paths), strict=True)
        )
        self._twin_keys, named = twin_keys(photos, twins, read, total=self.num_photos)
        if not named and len(twins):
            raise InputError(
                f"--group_by: {path} names none of the {counted(self.num_photos, 'photo')} here by the SHA-256 of its "
                "file. Give the table that `hugs twins` wrote for records of these photos."
            )

    def _key_by_name(self, path: str, version_key: str) -> str:
        parent, slash, _ = path.rpartition("/")
        return f"{parent}{slash}{version_key}" if self.by_path else version_key

    def _check_that_it_groups(self, group_by: str | None) -> None:
        assert self._group_of is not None
        pairs = ((folder, path) for folder, paths in self._classes.items() for path in paths)
        self.num_ungrouped = sum(self._group_of(folder, path) is None for folder, path in pairs)
        if self.num_ungrouped == self.num_photos:
            path = next(path for paths in self._classes.values() for path in paths)
            why = {PARENT: f"none of the photos lies in a folder below its class folder ({path})"}.get(
                group_by or "", f"it says nothing of any of the {counted(self.num_photos, 'photo')} (such as {path})"
            )
            raise InputError(
                f"--group_by: {why}. Received: {group_by!r}. Give {PARENT}, a regular expression that is searched in "
                "paths such as this one, or a CSV file of rows photo,group."
            )

    @property
    def are_chosen(self) -> bool:
        """Whether the user says which photos belong together."""
        return self._group_of is not None or self._twin_keys is not None

    @property
    def nested(self) -> tuple[int, int]:
        """The photos that lie in folders below their class folders, and the number of these folders."""
        sizes = Counter(
            (folder, below)
            for folder, paths in self._classes.items()
            for path in paths
            if (below := _below_class(folder, path).rpartition("/")[0])
        )
        return sizes.total(), len(sizes)

    def keys(self, folder: str) -> Iterator[tuple[str, str]]:
        """For each photo of a class: what identifies it, and the key of its group."""
        paths = self._classes[folder]
        for path, version_key in zip(paths, _version_keys(paths), strict=True):
            name = path.rpartition("/")[2]
            own, key = path if self.by_path else name, self._key_by_name(path, version_key)
            group = self._group_of(folder, path) if self._group_of else None
            if group is not None:
                key = group
            elif self._each_by_itself:
                key = own
            elif key != own:
                self.num_versions += 1
                if _MASK.search(_stem(name)):
                    self.masks.append(path)
            yield own, key if self._twin_keys is None else self._twin_keys.get(key, key)


def _version_keys(paths: Sequence[str]) -> Iterator[str]:
    """For each path the name of the photo of which it is a version, or what its name says instead of one.

    A file alone keeps its own name. Of versions of one photo (a.jpg beside a.webp, a RAW file beside its JPEG) the
    JPEG names them all. So adding a version moves no photo that is there, unless it is the JPEG.
    """
    originals: dict[tuple[str, str], str] = {}
    places = []
    for path in paths:
        folder, _, name = path.rpartition("/")
        place = (folder, _stem(name).casefold())
        places.append(place)
        other = originals.get(place)
        originals[place] = name if other is None else min(name, other, key=_version_order)
    for path, place in zip(paths, places, strict=True):
        name = path.rpartition("/")[2]
        yield _said_key(name, place, originals) if _SAYS_SOMETHING.search(name.lower()) else originals[place]


def _said_key(name: str, place: tuple[str, str], originals: Mapping[tuple[str, str], str]) -> str:
    """The key of a photo whose name may say that it is a version of another one, or a shot of a burst.

    Args:
      name: its file name.
      place: its folder, and its file name without ending, case-folded.
      originals: the file that names all files of a place.
    """
    said = _SAYS_ITS_GROUP.fullmatch(name)
    if said:
        key = next(filter(None, said.groups()))
        return f"{key}.jpg" if _PLAIN_PIXEL.fullmatch(key) else key
    folder, stem = place
    unmasked = _MASK.sub("", stem)
    for original in (_COPY_OF.sub("", _COPY.sub("", unmasked)), unmasked):
        if (folder, original) in originals:
            return originals[folder, original]
    return originals[place]


def _stem(name: str) -> str:
    stem, dot, _ = name.rpartition(".")
    return stem if dot and stem else name


def _version_order(name: str) -> tuple[bool, str]:
    return not name.lower().endswith((".jpg", ".jpeg")), name


def _below_class(folder: str, path: str) -> str:
    return f"/{path}".partition(f"/{folder}/")[2]


def _grouping(group_by: str | None, storage: Callable[[str], Storage]) -> Callable[[str, str], str | None] | TwinGroups:
    """The function from a class folder and a path to the group of the photo; None for photos of no group."""
    assert group_by is not None
    if group_by == PARENT:
        return lambda folder, path: _below_class(folder, path).rpartition("/")[0] or None
    try:
        is_file = bool(storage(group_by).match(group_by))
    except OSError:
        is_file = False
    if is_file or group_by.lower().endswith((".csv", ".txt", ".tsv")):
        return _from_file(group_by, storage(group_by))
    try:
        pattern = re.compile(group_by)
    except re.error as error:
        raise InputError(
            f"--group_by: neither {NAME}, {PATH} or {PARENT}, nor a file that exists, nor a regular expression "
            f"({error}). Received: {group_by!r}."
        ) from error

    def search(_: str, path: str) -> str | None:
        match = pattern.search(path)
        if match is None:
            return None
        return "/".join(part or "" for part in match.groups()) if pattern.groups else match[0]

    return search


def _from_file(list_path: str, storage: Storage) -> Callable[[str, str], str | None] | TwinGroups:
    """The groups of a CSV file. A photo is named by its path below the folder of photos, or by its file name.

    The table of `hugs twins` names photos by the digests of their files.
    """
    try:
        with storage.open(list_path) as stream:
            data = stream.read()
    except OSError as error:
        raise InputError(f"--group_by: {list_path} cannot be read as a CSV file photo,group ({error}).") from error
    groups = parse_groups(data, path=list_path, flag="group_by")
    if has_twin_columns(data):
        return groups
    by_name = groups.by_uri
    return lambda _, path: by_name.get(path) or by_name.get(path.rpartition("/")[2])
