"""Only one training at a time may write into a folder: a run locks every folder that it writes into."""

from __future__ import annotations

import contextlib
import os
import posixpath
from collections.abc import Iterator

from preprocess.locks.lock_holder import this_process
from preprocess.locks.output_lock import locked
from trainer.options import TrainingOptions
from trainer.storage.files import is_in_bucket, storage
from trainer.storage.working_folder import working_folder

# By default, folders with these names lie in the output folder. Then the lock of the output folder covers them.
_PARTS = ("checkpoints", "logs", "model")


def _folder_of_lock(path: str) -> str:
    path = path.rstrip("/") if is_in_bucket(path) else os.path.realpath(path)
    folder, name = posixpath.split(path)
    return folder if name in _PARTS and not folder.endswith("://") else path


@contextlib.contextmanager
def locked_outputs(options: TrainingOptions) -> Iterator[None]:
    """Prevents other runs from writing into the folders of this run while the `with` block runs.

    Of several workers, only the chief may call this, because only the chief writes.

    Raises:
      InputError: another run writes into one of the folders, or a folder is not writable.
    """
    wanted: dict[str, tuple[str, str]] = {}
    for flag, paths in options.paths_that_are("written").items():
        if options.evaluates_only and flag != "output_path":
            continue
        for path in paths:
            working_folder(path, flag=flag).require_writable()
            wanted.setdefault(_folder_of_lock(path), (flag, path))
    with contextlib.ExitStack() as stack:
        # All runs lock in the same order. So if two runs share several folders, one of them gets all the locks.
        for folder, (flag, path) in sorted(wanted.items()):
            holder = this_process(program="trainer.task")
            stack.enter_context(locked(folder, holder=holder, flag=f"--{flag}", output=path, storage=storage()))
        yield
