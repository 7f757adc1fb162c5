import sys

import pytest
from apache_beam.options.pipeline_options import DirectOptions

from configs.errors import InputError
from pipelines.runners.beam_options import has_one_worker, make_runner, moves_elements, parse_beam_options
from pipelines.runners.dask import complete_dask_flags, uses_dask

RUNNER_WITH_FLAGS = """
from apache_beam.options.pipeline_options import PipelineOptions
from apache_beam.runners.runner import PipelineRunner

class OurOwnOptions(PipelineOptions):
    @classmethod
    def _add_argparse_args(cls, parser):
        parser.add_argument("--our_own_address")

class OurOwnRunner(PipelineRunner):
    def is_fnapi_compatible(self):
        return False

class NoRunner:
    pass
"""


@pytest.fixture(scope="module")
def module(tmp_path_factory):
    """The name of a module; one for all tests, because Beam refuses a flag that two classes define."""
    folder = tmp_path_factory.mktemp("runner")
    (folder / "runner_with_flags.py").write_text(RUNNER_WITH_FLAGS)
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(folder)
        yield "runner_with_flags"


@pytest.mark.parametrize("equals", [True, False])
def test_the_flags_of_a_runner_given_by_its_full_name_are_known(module, equals):
    name = f"{module}.OurOwnRunner"
    flags = [f"--runner={name}"] if equals else ["--runner", name]
    options = parse_beam_options([*flags, "--our_own_address", "host:1"], own_flags=())
    assert options.get_all_options()["our_own_address"] == "host:1"
    runner = make_runner(options)
    assert type(runner).__name__ == "OurOwnRunner"
    assert not moves_elements(runner, options)


def test_of_a_runner_of_a_full_name_a_misspelt_flag_is_told(module):
    with pytest.raises(InputError, match="'--our_own_adress'. Did you mean '--our_own_address'"):
        parse_beam_options([f"--runner={module}.OurOwnRunner", "--our_own_adress=h"], own_flags=())


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("DaskRuner", "Beam has no runner 'DaskRuner'. Did you mean 'DaskRunner'? Pass one of "),
        ("flik", "Did you mean 'FlinkRunner'"),
        ("no.such.Runner", "'no.such.Runner' cannot be imported (No module named 'no')."),
        ("{}.NoSuchRunner", "has no attribute 'NoSuchRunner'"),
        ("{}.NoRunner", "is no runner of Beam"),
        ("os.path.join", "is no runner of Beam"),
    ],
)
def test_a_runner_that_is_none_is_one_line(module, name, words):
    with pytest.raises(InputError) as error:
        parse_beam_options(["--runner", name.format(module)], own_flags=())
    assert words in str(error.value)
    assert "\n" not in str(error.value)


def test_without_dask_the_message_says_how_to_install_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "dask.distributed", None)
    monkeypatch.delitem(sys.modules, "apache_beam.runners.dask.dask_runner", raising=False)
    with pytest.raises(InputError) as error:
        parse_beam_options(["--runner=DaskRunner"], own_flags=())
    assert "'DaskRunner' cannot be imported" in str(error.value)
    assert "[dask]" in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("name", ["FlinkRunner", "flink", "PRISM", "SparkRunner", "portable", "DirectRunner", "direct"])
def test_runners_of_beam_are_known_by_their_short_names(name):
    options = parse_beam_options(["--runner", name], own_flags=())
    assert moves_elements(make_runner(options), options)


def test_several_workers_here_share_the_blocks():
    assert has_one_worker(parse_beam_options([], own_flags=()))
    assert not has_one_worker(parse_beam_options(["--direct_num_workers=2"], own_flags=()))
    assert not has_one_worker(parse_beam_options(["--runner=FlinkRunner"], own_flags=()))
    assert parse_beam_options([], own_flags=()).view_as(DirectOptions).direct_num_workers == 1


def test_each_element_on_dask_is_a_partition_unless_the_user_says_otherwise():
    flags = ["--runner", "dask", "--dask_client_address=tcp://h:1"]
    assert uses_dask(flags)
    assert not uses_dask(["--runner=FlinkRunner"])
    assert complete_dask_flags(flags) == [*flags, "--dask_partition_size=1"]
    assert complete_dask_flags(complete_dask_flags(flags)) == complete_dask_flags(flags)
    assert complete_dask_flags([*flags, "--dask_npartitions=3"]) == [*flags, "--dask_npartitions=3"]
