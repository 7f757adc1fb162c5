"""README, docs/python.md, docs/formats.md: their commands and examples run, files have the fields that they list."""

import csv
import importlib
import importlib.util
import io
import json
import os
import pathlib
import re
import shlex
import shutil
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from configs.printed_commands import PROGRAMS
from preprocess.images.decode import decode_image
from tests.support import tiny_network
from tests.support.read_for_training import read_for_training

ROOT = pathlib.Path(__file__).parents[1]
# What the network takes, unlike Inception v3: an example that assumes the default's size fails.
_SIZE = 224
# Packages that examples may need and that are in no lock.
_OPTIONAL = ("pandas", "torch")

_README = (ROOT / "README.md").read_text()
_PYTHON_PAGE = (ROOT / "docs" / "python.md").read_text()
_FORMATS_PAGE = (ROOT / "docs" / "formats.md").read_text()
_EXAMPLES = re.findall(r"(?ms)^```python\n(.*?)^```", _PYTHON_PAGE)


# What is added to the commands of the README: a network that takes no time, and flags that write more files.
_ALSO = {
    "ingest": "--eval_percent 30 --test_percent 20",
    "embed": "--backbone tiny --weights random --engine tensorflow --precision float32",
    "train": "--max_steps 25 --seeds 2 --write_predictions --export_formats savedmodel,litert,onnx",
    "predict": "",
    "predict_all": "--engine tensorflow --precision float32",
}
_ALSO_INSIGHT = {
    "embed": "--backbone tiny --weights random --engine tensorflow --precision float32",
    "search": "--count 3",
}
_INSIGHT_COMMANDS = [
    command
    for block in re.findall(r"(?ms)^```bash\n(.*?)^```", (ROOT / "docs" / "insight.md").read_text())
    for command in block.replace("\\\n", " ").splitlines()
]
_COMMANDS = [command.replace("\\\n", " ") for command in re.findall(r"(?m)^hugs ((?:\\\n|.)*)$", _README)]
# An old graph is not one that the commands before it make.
_COMMANDS = [command for command in _COMMANDS if "--graph" not in command]


def run(subcommand, more=""):
    """Runs the commands of the README with a subcommand, in the order of the page."""
    commands = [command for command in _COMMANDS if command.startswith(f"{subcommand} ")]
    assert commands
    for command in commands:
        words = shlex.split(command)[1:] + shlex.split(_ALSO[subcommand])
        words += shlex.split(more) if "/eval.csv" in command else []
        assert not importlib.import_module(PROGRAMS[subcommand][0]).main(words)


def write_photo(path, level, random, size=(30, 40), **options):
    pixels = np.clip(random.normal(level, 40, (*size[::-1], 3)), 0, 255).astype(np.uint8)
    Image.fromarray(pixels).save(path, **options)


@pytest.fixture(scope="module")
def patch():
    with pytest.MonkeyPatch.context() as patch:
        tiny_network.install(patch, size=_SIZE)
        # For an example that does not name the network.
        tiny_network.stand_for(patch, "inception_v3")
        yield patch


@pytest.fixture(scope="module")
def workflow(tmp_path_factory, patch):
    """A folder in which the commands of the README made data/, so that every file and field is there."""
    folder = tmp_path_factory.mktemp("written_pages")
    patch.chdir(folder)
    random = np.random.RandomState(0)
    for label, level in (("hugs", 90), ("not-hugs", 160)):
        (folder / "my_photos" / label).mkdir(parents=True)
        for number in range(16):
            write_photo(folder / "my_photos" / label / f"{label} {number}.jpg", level, random)
    turned = Image.Exif()
    turned[0x112] = 6
    write_photo(folder / "photo.jpg", 90, random, size=(900, 800), exif=turned)
    write_photo(folder / "another.webp", 160, random)
    run("ingest")
    lists = {name: list(csv.reader((folder / "data" / f"{name}.csv").open())) for name in ("train", "eval", "test")}
    photo, label = lists["train"][0]
    other = next(name for name in ("hugs", "not-hugs") if name != label)
    # A missing photo, a blank line, a photo under two labels, an evaluation photo that training has, a wrong label.
    shutil.copy(folder / "data" / photo, folder / "data" / "copy.jpg")
    with (folder / "data" / "train.csv").open("a") as stream:
        stream.write(f"missing.jpg,hugs\n\ncopy.jpg,{other}\n")
    with (folder / "data" / "eval.csv").open("a") as stream:
        stream.write(
            f"copy.jpg,{label}\n{lists['test'][0][0]},{'hugs' if lists['test'][0][1] == 'not-hugs' else 'not-hugs'}\n"
        )
    run("embed", "--against data/preproc/train --embedding_cache cache")
    run("train")
    return folder


def test_the_commands_of_the_readme_lead_to_a_prediction(workflow, capsys):
    subcommands = [command.split()[0] for command in _COMMANDS]
    assert set(subcommands) <= set(PROGRAMS)
    assert [name for name in subcommands if name in _ALSO] == [
        "ingest",
        *["embed"] * 3,
        "train",
        "predict",
        "predict_all",
    ]
    assert _README.index("source .venv/bin/activate") < _README.index("\nhugs ")
    run("predict")
    out = capsys.readouterr().out
    assert "photo.jpg" in out
    assert "another.webp" in out
    run("predict_all")
    answers = (workflow / "out" / "answers-00000-of-00001.csv").read_text().splitlines()
    assert len(answers) == 1 + len(list((workflow / "my_photos").rglob("*.jpg")))


def test_the_commands_of_the_page_on_insight_run_after_those_of_the_readme(workflow, patch):
    """As they are written, in their order, in the folder that the commands of the README left."""
    patch.setattr("insight.drifting.comparison._MIN_PHOTOS", 8)  # The training set has fewer than are needed.
    (workflow / "new_photos").mkdir()
    random = np.random.RandomState(1)
    for number in range(24):
        write_photo(workflow / "new_photos" / f"{number}.jpg", 10 * number, random)
    uri = next(csv.reader((workflow / "data" / "train.csv").open()))[0]
    corrected = "image_uri,image_sha256,action,label\n" + f'"{uri}",,change,hugs\nnew_photos/0.jpg,,change,hugs\n'
    for name in ("corrections.csv", "labels.csv"):  # what the pages of audit and next download
        (workflow / name).write_text(corrected)
    seen = []
    for command in _INSIGHT_COMMANDS:
        words = shlex.split(command.replace("../my_photos/hugs/kitten.jpg", shlex.quote(uri)))
        if words[0] == "ls":
            subprocess.run(command, shell=True, cwd=workflow, check=True)
            continue
        seen.append(words[1])
        if words[1] == "train":
            assert "test" in read_for_training(words[2:])
            continue
        more = _ALSO_INSIGHT.get(words[1], "").split()
        assert not importlib.import_module(PROGRAMS[words[1]][0]).main(words[2:] + more), command
    assert set(seen) == {"audit", "train", "relabel", "embed", "next", "drift", "twins", "ingest", "map", "search"}
    for name in ("audit/audit.html", "next/next.html", "twins/twins.csv", "map/map.html", "drift/drift.html"):
        assert (workflow / "out" / name).exists(), name


def optional_package(example):
    """The package that an example needs and no lock has; None if there is none."""
    names = re.findall(r"(?m)^(?:import|from) (\w+)", example)
    return next((name for name in names if name in _OPTIONAL), None)


def run_in_another_process(program, folder):
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    subprocess.run([sys.executable, "-c", program], cwd=folder, env=environment, check=True)


@pytest.mark.parametrize("number", range(len(_EXAMPLES)))
def test_the_examples_run(workflow, capfd, number):
    example = _EXAMPLES[number]
    code = compile(example, f"docs/python.md, example {number + 1}", "exec")
    names = {"__name__": "example"}
    if package := optional_package(example):
        if importlib.util.find_spec(package) is None:
            pytest.skip(f"{package} is not installed; only the syntax was checked")
        run_in_another_process(example, workflow)  # TensorFlow is in this one, and PyTorch crashes beside it.
    else:
        exec(code, names)
    if "print(" in example:
        assert capfd.readouterr().out.strip()
    if "pixels" in names:
        assert (names["pixels"] == decode_image((workflow / "photo.jpg").read_bytes(), size=_SIZE)).all()
    if "normalize_photo" in names:
        assert Image.open(io.BytesIO(names["photo"])).size == (_SIZE, _SIZE)


def test_records_are_read_without_tensorflow(workflow):
    """PyTorch and TensorFlow crash each other in one process, so records must be readable without TensorFlow."""
    example = next(example for example in _EXAMPLES if "train.label_sets()" in example)
    program = f"{example}\nimport sys\nassert 'tensorflow' not in sys.modules"
    run_in_another_process(program, workflow)


def test_the_page_has_examples_for_each_library():
    assert len(_EXAMPLES) >= 10
    for library in ("tensorflow", "sklearn", "pandas", "torch", "onnxruntime", "apache_beam"):
        assert any(f"import {library}" in example or f"from {library}" in example for example in _EXAMPLES), library


def test_public_names_are_there():
    public = _PYTHON_PAGE[_PYTHON_PAGE.index("- in Python:") :].partition("\n\n")[0]
    for module, names in re.findall(r"`([a-z]\w*(?:\.\w+)+)`\s+\(([^)]*)\)", public):
        for name in re.findall(r"`(\w+)`", names):
            assert hasattr(importlib.import_module(module), name), f"{module}.{name}"
    for module, name in re.findall(r"`([a-z]\w*(?:\.[a-z]\w*)+)\.(\w+)`(?!\s+\()", public):
        assert hasattr(importlib.import_module(module), name), f"{module}.{name}"
    assert "Classifier" in public


class Fields:
    """The fields that a section of docs/formats.md lists: the type of each, by its path."""

    def __init__(self, section):
        text = _FORMATS_PAGE[_FORMATS_PAGE.index(f"\n## {section}\n") :].partition("\n## ")[2].partition("\n## ")[0]
        self.types = {}
        for paths, kind, meaning in re.findall(r"(?m)^\| (`[^|]*`) \| ([^|]*) \| (.*?) ?\|$", text):
            link = re.search(r"\]\(#([\w-]+)\)", meaning) if kind.startswith("object") else None
            for path in re.findall(r"`([^`]+)`", paths):
                self.types[path] = kind
                if link:
                    inner = Fields(_section_of(link[1]))
                    self.types |= {f"{path}.{name}": of_name for name, of_name in inner.types.items()}
        assert self.types

    def has_below(self, path):
        return any(name.startswith((f"{path}.", f"{path}[")) for name in self.types)

    @property
    def leaves(self):
        return {path for path in self.types if not self.has_below(path)}

    @property
    def always(self):
        """The leaves that each file has, or one of the files of a kind."""
        optional = {path for path, kind in self.types.items() if "(only " in kind}
        return {leaf for leaf in self.leaves if not any(f"{leaf}.".startswith(f"{path}.") for path in optional)}


def _section_of(anchor):
    headings = re.findall(r"(?m)^## (.*)$", _FORMATS_PAGE)
    return next(name for name in headings if re.sub(r"[^a-z0-9_ -]", "", name.lower()).replace(" ", "-") == anchor)


def paths_in(value, fields, at=""):
    """The paths of the leaves of a JSON value. Names below a documented `*` are that; an object without documented
    fields is a leaf."""
    if isinstance(value, dict) and (not at or fields.has_below(at)):
        for name, inner in value.items():
            path = f"{at}.{name}" if at else name
            star = f"{at}.*" if at else "*"
            documented = path in fields.types or fields.has_below(path)
            if not documented and (star in fields.types or fields.has_below(star)):
                path = star
            yield from paths_in(inner, fields, path)
    elif isinstance(value, list) and (f"{at}[]" in fields.types or fields.has_below(f"{at}[]")):
        for inner in value:
            yield from paths_in(inner, fields, f"{at}[]")
    elif not (value is None and fields.has_below(at)):
        yield at


def jsons(path):
    texts = path.read_text().splitlines() if path.suffix == ".jsonl" else [path.read_text()]
    return [json.loads(text) for text in texts]


@pytest.mark.parametrize(
    ("section", "files"),
    [
        ("manifest.json", ["preproc/_train/manifest.json"]),
        ("report.json", [f"preproc/_{name}/report.json" for name in ("train", "eval", "test")]),
        ("failed.jsonl and skipped.jsonl", ["preproc/_train/failed.jsonl", "preproc/_train/skipped.jsonl"]),
        ("duplicates.jsonl and shared_images.jsonl", ["preproc/_train/duplicates.jsonl"]),
        ("metrics.json", ["training/metrics.json"]),
        ("model.json", ["training/model/assets.extra/model.json"]),
        ("parity.json", ["training/model/parity.json"]),
    ],
)
def test_the_files_have_the_fields_that_are_listed_and_no_others(workflow, section, files):
    fields = Fields(section)
    found = {path for name in files for value in jsons(workflow / "data" / name) for path in paths_in(value, fields)}
    assert found - fields.leaves == set(), f"docs/formats.md, {section}: not listed"
    assert fields.always - found == set(), f"docs/formats.md, {section}: listed, but not in the file"


def test_the_tables_have_the_columns_that_are_listed(workflow):
    text = _FORMATS_PAGE[_FORMATS_PAGE.index("## predictions.csv") :].partition("\n## ")[0]
    tables = text.split("`shared_images.csv` has")
    for name, table in zip(("predictions.csv", "shared_images.csv"), tables, strict=True):
        rows = re.findall(r"(?m)^\| (`[^|]*`) \|", table)
        listed = [path for row in rows for path in re.findall(r"`([^`]+)`", row)]
        header = next(csv.reader((workflow / "data" / "training" / name).open()))
        assert list(dict.fromkeys(re.sub(r"^score_.*", "score_*", column) for column in header)) == listed


def test_every_reason_is_listed():
    table = _FORMATS_PAGE[_FORMATS_PAGE.index("\n## Reasons\n") :].partition("\n## d")[0]
    listed = {name for row in re.findall(r"(?m)^\| (`[^|]*`) \|", table) for name in re.findall(r"`(\w+)`", row)}
    source = "".join(path.read_text() for path in (ROOT / "preprocess").rglob("*.py"))
    raised = re.findall(r"(?:RowFailure\(\s*\"\w+\", |ImageError\(\s*|WebFault\(\s*)\"(\w+)\"", source)
    assert set(raised) - listed == set()
    assert {name for name in listed if f'"{name}"' not in source} == set()
