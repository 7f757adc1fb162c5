"""The parser that all programs share: its errors are one line that helps."""

import pytest

from configs.arguments import OneLineParser
from configs.errors import InputError


@pytest.fixture
def parser():
    parser = OneLineParser(module="pipelines.embed")
    parser.add_argument("--input_path", required=True)
    parser.add_argument("--output_path", required=True)
    parser.add_argument("--seed", type=int)
    return parser


@pytest.mark.parametrize("spelling", [["--ouput_path", "out"], ["--ouput_path=out"]])
def test_a_misspelt_flag_is_named_before_the_one_that_is_missing_for_it(parser, spelling):
    with pytest.raises(InputError, match=r"unrecognized arguments: --ouput_path\. Did you mean '--output_path'\?"):
        parser.parse_known_args(["--input_path", "list.csv", *spelling])


def test_a_flag_that_is_only_missing_is_named(parser):
    with pytest.raises(InputError, match=r"the following arguments are required: --output_path\. `.*embed --help`"):
        parser.parse_known_args(["--input_path", "list.csv", "--runner", "DirectRunner"])


def test_a_misspelt_flag_that_nothing_needs_has_the_nearest_one_named(parser):
    with pytest.raises(InputError, match=r"unrecognized arguments: --sed 1\. Did you mean '--seed'\?"):
        parser.parse_args(["--input_path", "list.csv", "--output_path", "out", "--sed", "1"])
