"""What tests let Beam remember is what it would find out."""

import copy
import functools

from apache_beam.options import pipeline_options
from apache_beam.transforms import core

from tests.support import quick_beam


class One(core.DoFn):
    def process(self, element, timestamp=core.DoFn.TimestampParam, *more, key=3, **others):
        yield element

    @staticmethod
    def alone(element, window=core.DoFn.WindowParam):
        return element


class Other(One):
    def process(self, element):
        return [element]


def test_signatures():
    real = getattr(core.get_function_args_defaults, "__wrapped__", core.get_function_args_defaults)
    remembering = quick_beam._remembering_signatures(real)
    one, other = One(), Other()
    functions = [one.process, One.process, other.process, Other.process, one.alone, str.upper, len, lambda a, b=[]: a]
    functions += [functools.partial(one.process, 3), One().process]
    for _ in range(2):
        for function in functions:
            assert remembering(function) == real(function)
            remembering(function)[0].append("whoever changes the answer keeps the change")


def test_options():
    real = getattr(pipeline_options.PipelineOptions.view_as, "__wrapped__", pipeline_options.PipelineOptions.view_as)
    remembering = quick_beam._remembering_options(real)
    flags = ["--runner=DirectRunner", "--experiments=a", "--experiments=b", "--project=p", "--unknown", "1"]
    kinds = [pipeline_options.StandardOptions, pipeline_options.DebugOptions, pipeline_options.GoogleCloudOptions]
    options = [pipeline_options.PipelineOptions(flags, save_main_session=True) for _ in range(4)]
    for view, each in zip([real, real, remembering, remembering], options, strict=True):
        for _ in range(2):
            for kind in kinds:
                found = view(each, kind)
                assert type(found) is kind and found._flags is flags
                assert found._all_options is each._all_options
        view(each, pipeline_options.DebugOptions).experiments.append("c")
        view(each, pipeline_options.StandardOptions).runner = "Other"
        assert view(each, pipeline_options.DebugOptions).experiments == ["a", "b", "c"]
        copy.copy(view(each, pipeline_options.DebugOptions))
    real_ones, remembered = options[:2], options[2:]
    assert [vars(one)["_all_options"] for one in remembered] == [vars(one)["_all_options"] for one in real_ones]
    assert str(remembering(options[2], kinds[2])) == str(real(options[0], kinds[2]))
    assert pipeline_options.PipelineOptions(flags).view_as(pipeline_options.StandardOptions).runner == "DirectRunner"
