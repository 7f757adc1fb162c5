from __future__ import annotations

import pytest

from preprocess.machine import processor


@pytest.mark.parametrize(
    ("text", "name", "bfloat16"),
    [
        ("processor\t: 0\nmodel name\t: AMD EPYC\nflags\t\t: fpu avx512f avx512_bf16 fsrm\n", "AMD EPYC", True),
        ("model name\t: Intel(R) Xeon(R)\nflags\t\t: fpu avx512f amx_bf16 amx_tile\n", "Intel(R) Xeon(R)", True),
        ("model name\t: Intel(R) Xeon(R)\nflags\t\t: fpu avx512f avx512_vnni\n", "Intel(R) Xeon(R)", False),
        ("processor\t: 0\nFeatures\t: fp asimd bf16\n", "", True),  # Arm.
        ("", "", False),
    ],
)
def test_the_kernel_says_what_the_processor_is(tmp_path, monkeypatch, text, name, bfloat16):
    path = tmp_path / "cpuinfo"
    path.write_text(text)
    monkeypatch.setattr(processor, "_CPU_INFO", str(path))
    assert processor.processor_name() == name
    assert processor.processor_has_bfloat16() == bfloat16


def test_where_the_kernel_says_nothing(tmp_path, monkeypatch):
    monkeypatch.setattr(processor, "_CPU_INFO", str(tmp_path / "none"))
    assert (processor.processor_name(), processor.processor_has_bfloat16()) == ("", False)
