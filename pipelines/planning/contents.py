"""Makes a plan: measures a sample on this machine, and calculates the planned costs from it."""

from __future__ import annotations

import dataclasses
import datetime
import functools
import math
import shutil
import sys
import time
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from configs.activity import doing
from configs.counts import counted
from configs.prices import RegionPrices
from configs.recipe import Recipe
from pipelines.checks.preflight import ScannedLists
from pipelines.planning import amounts, dataflow_cost, model
from pipelines.planning.assumptions import assumptions_of
from pipelines.planning.dataflow_cost import Fleet
from pipelines.planning.file import PLAN_FORMAT, planned_options
from pipelines.planning.model import ListWork
from pipelines.planning.sample import EngineCost, SampledImages, record_bytes, sample_images, time_engine, together
from pipelines.planning.scaling import scaling_of
from pipelines.runners.machine_types import Machine, machine_of
from preprocess.backbones.backbone import BackboneSpec
from preprocess.beam.image_source import ImageSource
from preprocess.beam.transforms import EngineLoader
from preprocess.engines.int8 import CALIBRATION_IMAGES
from preprocess.engines.select import EngineSpec
from preprocess.machine.cores import available_cores
from preprocess.storage.uris import has_scheme


@dataclasses.dataclass(frozen=True, kw_only=True)
class PlannedList:
    """A list of the recipe: its split, its path, and the counts and the sample from scanning it, with its time."""

    split: str
    input_path: str
    scanned: ScannedLists
    scan_sec: float = 0.0


def make_plan(
    recipe: Recipe,
    prices: RegionPrices,
    lists: Sequence[PlannedList],
    *,
    specs: Sequence[BackboneSpec],
    data_dir: str,
    sample_size: int,
    batch_size: int | None,
) -> dict[str, Any]:
    """Makes the plan of a recipe.

    Args:
      recipe: the recipe, with the options of the command line in it.
      prices: the prices of its region.
      lists: at least one list.
      specs: the network, or several that embed the same images in one run.
      data_dir: the folder of the lists.
      sample_size: the number of images of each list that are tried.
      batch_size: images in a batch; None for the engine's own choice.

    Returns:
      The plan, as JSON: what `pipelines.planning.file` writes and `pipelines.planning.table` shows.

    Raises:
      InputError: no image of a sample can be used, or the network cannot be loaded.
    """
    options = recipe.preprocess
    first, *others = dict.fromkeys(spec.image.size for spec in specs)
    images = dataclasses.replace(ImageSource.of_options(options, size=first), further_sizes=tuple(others))
    samples = {planned.split: _sample(planned, sample_size, _images_of(planned, images)) for planned in lists}
    engine_costs = functools.partial(
        _engine_costs,
        specs=specs,
        # The same images as in pipelines.embed, so that the int8 network is in the cache when the job starts.
        calibration=lists[0].scanned.sample[:CALIBRATION_IMAGES],
        images=images,
        # Views take the same time as the image itself.
        pixels=samples[lists[0].split].pixels,
        batch_size=batch_size,
    )
    of_each = engine_costs(EngineSpec(engine=options.engine, precision=options.precision))
    here = together(of_each)
    works = [
        _work(planned, recipe, samples[planned.split], of_each, views=_images_of(planned, images).num_views)
        for planned in lists
    ]
    machine = machine_of(recipe.dataflow.machine_type)
    why_not = _why_no_dataflow(recipe, machine, here, prices)
    remote = here
    fleet = None
    if why_not is None and machine is not None:
        fleet = Fleet(machine=machine, options=recipe.dataflow, prices=prices.prices)
        if here.precision == "bfloat16" and not machine.has_bfloat16:
            kind: Any = here.name.split()[0]
            remote = together(engine_costs(EngineSpec(engine=kind, precision="float32")))
    entries = [
        _entry(
            planned,
            work,
            _images_of(planned, images),
            here=here,
            remote=remote,
            fleet=fleet,
            is_first=planned is lists[0],
        )
        for planned, work in zip(lists, works, strict=True)
    ]
    return {
        "format": PLAN_FORMAT,
        "made": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "recipe": recipe.name,
        "data_dir": data_dir,
        "options": planned_options(options, batch_size),
        "max_failed_percent": options.max_failed_percent,
        "machine": {
            "cores": available_cores(),
            "free_bytes": None if has_scheme(data_dir) else shutil.disk_usage(data_dir).free,
        },
        "engine": _as_json(here),
        "lists": entries,
        "dataflow": {"why_not": why_not} if fleet is None else _dataflow(works, remote, fleet, prices),
        "assumptions": assumptions_of(recipe, prices, here=here, remote=remote, fleet=fleet),
    }


def _images_of(planned: PlannedList, images: ImageSource) -> ImageSource:
    """How the images of a list are read: only training lists have several views."""
    return images if planned.split == "train" else images.without_views


def _sample(planned: PlannedList, size: int, images: ImageSource) -> SampledImages:
    """Measures a sample of a list."""
    scanned = planned.scanned
    _say(f"{planned.split}: {counted(scanned.rows, 'row')}; trying {counted(min(size, len(scanned.sample)), 'image')}")
    drawn = dict(zip(scanned.sample, scanned.sample_times, strict=True))
    with doing(f"{planned.split}: reading a sample"):
        return sample_images(drawn, number=size, lists=scanned, images=images)


def _engine_costs(
    engine: EngineSpec,
    *,
    specs: Sequence[BackboneSpec],
    calibration: Sequence[str],
    images: ImageSource,
    pixels: Mapping[int, np.ndarray],
    batch_size: int | None,
) -> list[EngineCost]:
    """Loads the engine of each backbone and times it on the pixels of a sample."""
    costs = []
    for spec in specs:
        size = spec.image.size
        of_size = dataclasses.replace(images, size=size, further_sizes=())
        started = time.perf_counter()
        with doing("loading the network"):
            loaded = EngineLoader(backbone=spec, engine=engine, calibration=tuple(calibration), images=of_size)()
        load_sec = time.perf_counter() - started
        name = f"{spec.name}: " if len(specs) > 1 else ""
        _say(f"{name}timing {loaded.info.engine}, {loaded.info.why.removesuffix(': asked for')}")
        with doing("timing the network"):
            costs.append(time_engine(loaded, pixels[size], batch_size=batch_size, load_sec=load_sec))
    return costs


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def _work(
    planned: PlannedList, recipe: Recipe, sample: SampledImages, engines: Sequence[EngineCost], *, views: int
) -> ListWork:
    rows_per_block = recipe.preprocess.rows_per_shard
    return ListWork(
        split=planned.split,
        rows=planned.scanned.rows,
        images=planned.scanned.images,
        # This is a lower bound, because each of several lists may end with a block that is not full.
        blocks=max(math.ceil(planned.scanned.rows / rows_per_block), len(planned.scanned.paths)),
        rows_per_block=rows_per_block,
        lists=len(planned.scanned.paths),
        views=views,
        sample=sample,
        sets=len(engines),
        record_bytes=sum(record_bytes(sample, engine, views=views) for engine in engines),
        gzipped=recipe.preprocess.compression == "gzip",
    )


def _why_no_dataflow(recipe: Recipe, machine: Machine | None, here: EngineCost, prices: RegionPrices) -> str | None:
    options = recipe.dataflow
    if options.gpu != "none":
        why_not = f"the recipe's workers have a GPU (dataflow.gpu: {options.gpu}), and nothing was ever measured on one"
        if machine is None:
            return why_not
        fleet = Fleet(machine=machine, options=options, prices=prices.prices)
        return (
            f"{why_not}. A worker costs {amounts.dollars(fleet.hourly_price)} an hour, "
            f"{amounts.dollars(fleet.hourly_price_of_gpus)} of it for the GPU, at the prices of {prices.region} from "
            f"{prices.source}: check them"
        )
    if here.device != "cpu":
        return "the network was timed on a GPU, and the recipe's workers have none. Plan on a machine without"
    if machine is None:
        return (
            f"vCPUs and memory of {options.machine_type} (dataflow.machine_type) are not known here; those of n2, "
            "n2-custom-4-8192, c3, e2 and others are"
        )
    if recipe.preprocess.precision == "bfloat16" and not machine.has_bfloat16:
        return f"--precision bfloat16 stops on {machine.name}, which lacks it. Pass auto, or take a c3 or n4 machine"
    return None


def _entry(
    planned: PlannedList,
    work: ListWork,
    images: ImageSource,
    *,
    here: EngineCost,
    remote: EngineCost,
    fleet: Fleet | None,
    is_first: bool,
) -> dict[str, Any]:
    sample = work.sample
    planned_cost = model.planned_cost_here(work, here, cores=available_cores(), is_first=is_first)
    on_dataflow = None
    if fleet is not None:
        workers = fleet.numbers_of_workers(work.blocks)[-1]
        on_dataflow = dataflow_cost.planned_cost_on_dataflow(work, remote, fleet, workers).to_json()
    return {
        "split": planned.split,
        "input_path": planned.input_path,
        "sha256": list(planned.scanned.sha256),
        "rows": work.rows,
        "images": work.images,
        "blocks": work.blocks,
        "scan_sec": round(planned.scan_sec, 3),
        "views": None if images.views is None else images.views.to_json(),
        "sample": {name: value for name, value in _as_json(sample).items() if name != "pixels"},
        "record_bytes": work.record_bytes,
        "output_bytes": work.output_bytes.to_json(),
        "predictions": {
            "here": planned_cost.to_json(),
            "dataflow": on_dataflow,
            "elsewhere": model.planned_cost_elsewhere(work, where="machines that the plan does not know").to_json(),
        },
    }


def _dataflow(works: list[ListWork], engine: EngineCost, fleet: Fleet, prices: RegionPrices) -> dict[str, Any]:
    costs = dataflow_cost.costs_by_workers(works, engine, fleet)
    traffic = [dataflow_cost.traffic_of(work, fleet.prices) for work in works]
    machine, options = fleet.machine, fleet.options
    return {
        "why_not": None,
        "machine_type": machine.name,
        "vcpus": machine.vcpus,
        "memory_gb": machine.memory_gb,
        "disk_gb": options.disk_gb,
        "hourly_price": fleet.hourly_price,
        "hourly_price_of_gpus": fleet.hourly_price_of_gpus,
        "region": prices.region,
        "prices": {"source": prices.source, **dataclasses.asdict(prices.prices)},
        "engine": _as_json(engine),
        "max_workers": options.max_workers,
        "workers_allowed": fleet.workers_allowed,
        "most_blocks": max(work.blocks for work in works),
        "rows_per_block": works[0].rows_per_block,
        "by_workers": [cost.to_json() for cost in costs],
        "recommended_workers": dataflow_cost.recommended(costs).workers,
        "scaling": scaling_of(works, engine, fleet),
        "traffic": {
            "shuffle_bytes": sum(one.shuffle_bytes for one in traffic),
            "class_a": sum(one.class_a for one in traffic),
            "class_b": sum(one.class_b for one in traffic),
            "dollars": sum(one.dollars for one in traffic),
        },
    }


def _as_json(value: Any) -> dict[str, Any]:
    """The fields of a dataclass as JSON; arrays stay arrays, and the caller leaves them out."""
    return {field.name: _plain(getattr(value, field.name)) for field in dataclasses.fields(value)}


def _plain(value: Any) -> Any:
    return value.to_json() if hasattr(value, "to_json") else value
