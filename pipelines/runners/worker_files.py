"""Temporary files from which Beam installs workers without an image; they exist while a job is submitted."""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Iterator, Sequence

from apache_beam.options.pipeline_options import PipelineOptions, SetupOptions

from configs.source_files import REPOSITORY, source_files
from pipelines.runners.dataflow import SETUP_FILE
from preprocess.storage.scratch import scratch_folder


@contextlib.contextmanager
def worker_files(options: PipelineOptions, requirements: Sequence[str]) -> Iterator[None]:
    """Within this context, the options name a requirements file and a copy of the checkout.

    A copy is used for two reasons: building a source distribution writes files into the folder, and the submitted job
    contains the folder's path, which should not tell where the checkout is.

    Args:
      options: of the pipeline.
      requirements: what workers install, as lines of a requirements file; empty if they install nothing.
    """
    setup = options.view_as(SetupOptions)
    with scratch_folder() as folder:
        if requirements:
            setup.requirements_file = os.path.join(folder, "requirements.txt")
            with open(setup.requirements_file, "w", encoding="utf-8") as stream:
                stream.writelines(f"{line}\n" for line in requirements)
        if setup.setup_file == SETUP_FILE:
            source = os.path.join(folder, "source")
            for path in source_files():
                os.makedirs(os.path.dirname(os.path.join(source, path)), exist_ok=True)
                shutil.copyfile(os.path.join(REPOSITORY, path), os.path.join(source, path))
            setup.setup_file = os.path.join(source, os.path.basename(SETUP_FILE))
        yield
