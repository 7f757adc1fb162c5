"""Folders in a bucket whose names work everywhere in the workflow: in flags, patterns, paths below /gcs, and pip."""

from __future__ import annotations

import re

from configs.errors import InputError

# A semicolon ends the name of a package for pip.
_FOLDER = re.compile(r"""gs://[a-z0-9][a-z0-9._-]+[a-z0-9](/[^,;*?\[\]"\\\x00-\x1f\x7f]+)?""")
# Names that are not folders if the bucket is mounted as a disk, but have a special meaning in paths.
_STEPS = frozenset(("", ".", ".."))


def require_folder(uri: str, *, field: str, within_bucket: bool = True) -> str:
    """A folder in a bucket, without the slash at its end.

    Args:
      uri: the folder as the user gave it.
      field: the name of the option, for messages.
      within_bucket: whether the bucket itself is refused.

    Raises:
      InputError: it is not such a folder, or has a character with a special meaning in flags or patterns.
    """
    folder = uri.rstrip("/")
    steps = not _STEPS.isdisjoint(folder.removeprefix("gs://").split("/"))
    if not _FOLDER.fullmatch(folder) or steps or (within_bucket and folder.count("/") < 3):
        rule = "gs://BUCKET/FOLDER" if within_bucket else "gs://BUCKET or a folder in it"
        raise InputError(
            f"{field}: must be {rule}, without commas, semicolons, quotes, backslashes and * ? [ ], and without "
            f"folders named '', '.' or '..', in a bucket whose name has 3 or more of a-z, 0-9, '.', '_' and '-'. "
            f"Received: {uri!r}."
        )
    return folder
