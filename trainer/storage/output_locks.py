"""One training at a time writes into a folder: the locks of all that a run writes into."""

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

_FLAGS = ("output_path", "checkpoint_dir", "log_dir", "export_dir")
# Folders of these names belong to the output folder that they lie in, which is where they are by default.
_PARTS = ("checkpoints", "logs", "model")


def _folder_of_lock(path: str) -> str:
    path = path.rstrip("/") if is_in_bucket(path) else os.path.realpath(path)
    folder, name = posixpath.split(path)
    return folder if name in _PARTS and not folder.endswith("://") else path


@contextlib.contextmanager
def locked_outputs(options: TrainingOptions) -> Iterator[None]:
    """Keeps every other run from writing into the folders of this one, for as long as the `with` block takes.

    To be taken by the chief alone: of several workers nobody else writes.

    Raises:
      InputError: another run writes into one of them, or it cannot be written to.
    """
    paths = {flag: getattr(options, flag) for flag in _FLAGS[: 1 if options.evaluates_only else None]}
    wanted: dict[str, tuple[str, str]] = {}
    for flag, path in paths.items():
        if path:
            working_folder(path, flag=flag).require_writable()
            wanted.setdefault(_folder_of_lock(path), (flag, path))
    with contextlib.ExitStack() as stack:
        # In one order in all runs, so that of two that share several folders one gets them all.
        for folder, (flag, path) in sorted(wanted.items()):
            holder = this_process(program="trainer.task")
            stack.enter_context(locked(folder, holder=holder, flag=f"--{flag}", output=path, storage=storage()))
        yield
