"""The plan of an answering: how long the photos take and what that costs, from a sample of them."""

from __future__ import annotations

import dataclasses

from configs.errors import EXIT_OK
from configs.option import options_of
from configs.prices import load_prices
from configs.recipe import PreprocessOptions
from pipelines.answers.flags import AnswerFlags
from pipelines.checks.output_claim import nearest_folder
from pipelines.checks.preflight import scan_lists
from pipelines.embedding.prepared_job import PreparedJob
from pipelines.planning.contents import PlannedList, make_plan
from pipelines.planning.table import plan_lines
from preprocess.answers.answer_files import RECORDS_NAME
from preprocess.beam.transforms import EngineLoader
from preprocess.engines.int8 import CALIBRATION_IMAGES
from preprocess.storage.uris import has_scheme


def print_plan(flags: AnswerFlags, prepared: PreparedJob, sample_size: int) -> int:
    """Tries some photos and prints what all of them take. Answering for records takes next to nothing beside it.

    Args:
      flags: of the program.
      prepared: the job that would embed the photos.
      sample_size: photos to try.

    Returns:
      0.

    Raises:
      InputError: no photo of the sample can be used, or the network cannot be loaded.
    """
    loader = prepared.options.load_engine
    assert isinstance(loader, EngineLoader)
    names = options_of(PreprocessOptions)
    output = flags.options.output_path
    values = {name: value for name, value in flags.options.job_options().items() if name in names}
    preprocess = dataclasses.replace(flags.recipe.preprocess, **values)
    recipe = dataclasses.replace(flags.recipe, name=RECORDS_NAME, preprocess=preprocess)
    scanned = scan_lists(
        prepared.job.input_paths,
        labels=prepared.labels,
        unknown_labels="unlabeled",
        storage=prepared.storage,
        unsaid=prepared.job.input_paths,
        sample_size=max(sample_size, CALIBRATION_IMAGES),
    )
    plan = make_plan(
        recipe,
        load_prices(recipe.cloud.region, None),
        [PlannedList(split=RECORDS_NAME, input_path=scanned.paths[0], scanned=scanned)],
        specs=[loader.backbone],
        data_dir=output if has_scheme(output) else nearest_folder(output),
        sample_size=sample_size,
        batch_size=flags.options.batch_size,
    )
    print("\n".join(plan_lines(plan)))
    return EXIT_OK
