"""From a recipe to the flags of Beam's DataflowRunner."""

import re

import pytest

from configs.cloud import CloudOptions, DataflowOptions
from configs.errors import InputError
from configs.recipe import Recipe
from pipelines.runners import dataflow
from pipelines.runners.beam_options import is_dataflow, is_local, parse_beam_options
from tests.support.dataflow_job import IMAGE, OUTPUT


def flags_of(recipe=Recipe(name="hugs"), given=(), **changes):  # noqa: B008 (frozen)
    arguments = {"output_prefix": OUTPUT, "project": "my-project", "setup_file": "/src/setup.py"}
    return dataflow.dataflow_flags(recipe, list(given), **(arguments | changes))


def recipe_with(cloud=None, **options):
    return Recipe(name="hugs", cloud=CloudOptions(**(cloud or {})), dataflow=DataflowOptions(**options))


def test_a_recipe_that_says_nothing_has_flags_for_everything_that_matters():
    assert flags_of() == [
        "--runner=DataflowRunner",
        "--project=my-project",
        "--region=us-central1",
        f"--job_name={dataflow.job_name(OUTPUT)}",
        "--temp_location=gs://bucket/hugs_staging/temp",
        "--staging_location=gs://bucket/hugs_staging/jobs",
        "--machine_type=n2-standard-4",
        "--max_num_workers=20",
        "--autoscaling_algorithm=THROUGHPUT_BASED",
        "--disk_size_gb=50",
        "--number_of_worker_harness_threads=2",
        "--setup_file=/src/setup.py",
        "--requirements_cache=skip",
        "--experiments=no_use_multiple_sdk_containers",
        "--resource_hint=min_ram=6GB",
    ]


def test_beam_takes_every_flag_that_a_recipe_can_give():
    recipe = recipe_with(
        {"service_account": "w@p.iam.gserviceaccount.com", "labels": {"team": "vision"}},
        machine_type="n1-standard-8",
        num_workers=2,
        autoscaling="none",
        disk_type="pd-ssd",
        network="net",
        subnetwork="regions/us-central1/subnetworks/sub",
        public_ips=False,
        image=IMAGE,
        gpu="t4",
    )
    flags = flags_of(recipe)
    options = parse_beam_options(flags, own_flags=[]).get_all_options()
    assert options["disk_type"] == "compute.googleapis.com/projects//zones//diskTypes/pd-ssd"
    assert options["dataflow_service_options"] == [
        "worker_accelerator=type:nvidia-tesla-t4;count:1;install-nvidia-driver"
    ]
    assert options["use_public_ips"] is False
    assert options["autoscaling_algorithm"] == "NONE"
    assert options["labels"] == ["team=vision"]
    cheap = parse_beam_options(flags_of(recipe_with(flexrs="cost")), own_flags=[]).get_all_options()
    assert cheap["flexrs_goal"] == "COST_OPTIMIZED"
    # An image has the project and all that it needs.
    assert options["setup_file"] is None
    assert options["requirements_cache"] is None
    assert not [flag for flag in flags if "resource_hint" in flag]


def test_memory_is_asked_for_where_nothing_forbids_hints():
    hint = ["--resource_hint=min_ram=6GB"]

    def hints(recipe=None, given=()):
        flags = flags_of(recipe, given) if recipe else flags_of(given=given)
        return [flag for flag in flags if "resource_hint" in flag]

    assert hints() == hint
    assert hints(given=["--resource_hints=min_ram=9GB"]) == ["--resource_hints=min_ram=9GB"]
    assert hints(given=["--flexrs_goal=SPEED_OPTIMIZED"]) == []
    assert hints(given=["--dataflow_service_options=worker_accelerator=type:x;count:1"]) == []


def test_a_machine_with_too_little_memory_is_refused():
    with pytest.raises(InputError, match="n2-highcpu-4 has 4 GB of memory, and a worker may need 6 GB"):
        flags_of(given=["--machine_type=n2-highcpu-4"])
    flags_of(given=["--machine_type=x9-unknown-4"])


@pytest.mark.parametrize(
    "given",
    [
        ["--worker_machine_type", "e2-highcpu-8"],
        ["--machine_type=e2-highcpu-8"],
    ],
)
def test_flags_on_the_command_line_win_under_any_name(given):
    flags = flags_of(given=given)
    assert [flag for flag in flags if "machine_type" in flag or "e2" in flag] == given
    assert parse_beam_options(flags, own_flags=[]).get_all_options()["machine_type"] == "e2-highcpu-8"


def test_flags_that_may_be_given_several_times_are_added_to():
    recipe = recipe_with({"labels": {"team": "vision", "cost": "7"}})
    given = ["--label", "team=audio", "--experiments=shuffle_mode=service", "--use_public_ips"]
    flags = flags_of(recipe, given)
    assert [flag for flag in flags if flag.startswith("--labels")] == ["--labels=cost=7"]
    assert flags[-4:] == given
    assert "--experiments=no_use_multiple_sdk_containers" in flags
    assert "--experiments=no_use_multiple_sdk_containers" not in flags_of(
        given=["--experiments=use_multiple_sdk_containers"]
    )


def test_all_flags_given_again_stay_as_they_are():
    flags = flags_of(recipe_with({"labels": {"team": "vision"}}))
    assert flags_of(recipe_with({"labels": {"team": "vision"}}), flags) == flags


@pytest.mark.parametrize(
    ("prefix", "words"),
    [
        (OUTPUT, "hugs-20260102-030405-train"),
        ("gs://bucket/train", "train"),
        ("gs://bucket/A b/Été_1/eval", "a-b-t-1-eval"),
        ("gs://bucket/2026/preproc/eval", "embed-2026-eval"),
        ("gs://bucket/雏菊", "embed"),
        ("gs://bucket/" + "x" * 2000, "x" * 900),
    ],
)
def test_job_names_follow_the_rule_of_the_service(prefix, words):
    name = dataflow.job_name(prefix)
    assert re.fullmatch(f"{words}-[0-9a-f]{{8}}", name)
    assert re.fullmatch("[a-z]([-a-z0-9]{0,1022}[a-z0-9])?", name)


def test_no_two_outputs_have_the_same_job_name():
    """Within a project the service takes one of two active jobs with the same name, whatever bucket they write to."""
    outputs = [
        OUTPUT,
        OUTPUT.replace("bucket", "other"),
        OUTPUT.replace("hugs_", "hugs-"),
        OUTPUT.replace("hugs", "HUGS"),
        "gs://bucket/雏菊",
        "gs://bucket/菊",
    ]
    assert len(set(map(dataflow.job_name, outputs))) == len(outputs)
    assert dataflow.job_name(OUTPUT) == dataflow.job_name(OUTPUT)


@pytest.mark.parametrize(
    ("machine_type", "disk"),
    [
        ("n2-standard-4", None),
        ("c3-standard-4", "pd-ssd"),
        ("c4-standard-4", "hyperdisk-balanced"),
        ("n4-standard-4", "hyperdisk-balanced"),
        ("g2-standard-4", None),
    ],
)
def test_machines_that_refuse_the_default_disk_get_another(machine_type, disk):
    wanted = [f"--worker_disk_type=compute.googleapis.com/projects//zones//diskTypes/{disk}"] if disk else []
    for flags in (flags_of(recipe_with(machine_type=machine_type)), flags_of(given=[f"--machine_type={machine_type}"])):
        assert [flag for flag in flags if "disk_type" in flag] == wanted
        assert flags_of(given=flags) == flags


@pytest.mark.parametrize(
    ("options", "given", "words"),
    [
        ({}, ["--machine_type=t2a-standard-4"], "--machine_type: dataflow.machine_type must be another"),
        ({}, ["--worker_machine_type=e2-medium"], "e2-medium has a shared core"),
        (
            {},
            ["--disk_size_gb=25"],
            "--disk_size_gb: dataflow.disk_gb must be a whole number of at least 30. Received: 25",
        ),
        (
            {"disk_type": "pd-ssd"},
            ["--machine_type=c4-standard-4"],
            "dataflow.disk_type must be hyperdisk-balanced for c4-standard-4",
        ),
        (
            {},
            ["--worker_disk_type=compute.googleapis.com/projects//zones//diskTypes/hyperdisk-balanced"],
            "must be pd-standard or pd-balanced or pd-ssd for n2-standard-4",
        ),
        ({"machine_type": "n1-standard-4", "gpu": "t4", "image": IMAGE}, ["--machine_type=n2-standard-4"], "n1 family"),
        (
            {"machine_type": "n1-standard-4", "gpu": "t4", "image": IMAGE},
            ["--flexrs_goal=COST_OPTIMIZED"],
            "dataflow.flexrs must be none with gpu t4",
        ),
        (
            {},
            ["--flexrs_goal=COST_OPTIMIZED", "--dataflow_service_options=worker_accelerator=type:nvidia-l4;count:1"],
            "FlexRS has no GPUs",
        ),
        ({"flexrs": "cost"}, ["--autoscaling_algorithm=NONE"], "dataflow.flexrs must be none with autoscaling none"),
    ],
)
def test_what_the_service_would_refuse_later_is_refused_here(options, given, words):
    with pytest.raises(InputError) as refusal:
        flags_of(recipe_with(**options), given)
    assert words in str(refusal.value)


def test_what_overrides_a_pair_that_does_not_fit_is_accepted():
    flags_of(given=["--machine_type=c4-standard-4", "--disk_size_gb=30", "--autoscaling_algorithm=NONE"])
    flags_of(given=["--disk_size_gb=0"])  # For Beam: the default.
    flags_of(given=["--worker_disk_type=compute.googleapis.com/projects//zones//diskTypes/another-type"])


@pytest.mark.parametrize(
    ("given", "changes", "words"),
    [
        ([], {"output_prefix": "out/train"}, "Dataflow's workers write to a bucket. Received: 'out/train'"),
        ([], {"setup_file": None}, "no checkout here whose setup.py"),
        ([], {"project": "X"}, "cloud.project must be"),
        (["--region=mars-1"], {}, "cloud.region must be a region"),
        (["--region", "europe-west4", "--subnetwork=regions/us-central1/subnetworks/s"], {}, "not in the region"),
        (["--temp_location=/tmp/x"], {}, "--temp_location: must be a folder in a bucket"),
        (["--staging_location=gs://bucket"], {}, "--staging_location: must be a folder in a bucket"),
        (["--template_location=gs://b/t"], {}, "--template_location: embedding is a batch job"),
        (["--setup_file=setup.py"], {}, "--setup_file: must name a folder as well"),
        (["--streaming"], {}, "--streaming: embedding is a batch job"),
    ],
)
def test_what_cannot_become_a_job_is_refused(given, changes, words):
    with pytest.raises(InputError, match=re.escape(words)):
        flags_of(given=given, **changes)


@pytest.mark.parametrize(
    ("runner", "local", "on_dataflow"),
    [
        (None, True, False),
        ("direct", True, False),
        ("DirectRunner", True, False),
        ("FnApiRunner", True, False),
        ("dataflow", False, True),
        ("DATAFLOWRUNNER", False, True),
        ("apache_beam.runners.dataflow.dataflow_runner.DataflowRunner", False, True),
        ("PortableRunner", False, False),
    ],
)
def test_runners_are_known_by_all_their_names(runner, local, on_dataflow):
    flags = [f"--runner={runner}"] if runner else []
    options = parse_beam_options(flags, own_flags=[])
    assert (is_local(options), is_dataflow(options)) == (local, on_dataflow)
    assert dataflow.uses_dataflow(flags) == on_dataflow
