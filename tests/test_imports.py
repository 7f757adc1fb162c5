"""Which package may import which: the columns of ARCHITECTURE.md, held by reading every import statement."""

import ast
import pathlib
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).parents[1]
OURS = {"configs", "preprocess", "pipelines", "trainer", "serving", "insight", "cloud", "commands"}
OURS |= {"demo", "benchmarks", "scripts", "tests"}
MAY_IMPORT = {
    "configs": {"configs"},
    "preprocess": {"preprocess", "configs"},
    # `pipelines.answers` alone takes something of the trainer.
    "pipelines": {"pipelines", "trainer", "preprocess", "configs"},
    "trainer": {"trainer", "preprocess", "configs"},
    # `serving.search` alone takes something of insight.
    "serving": {"serving", "insight", "trainer", "preprocess", "configs"},
    "insight": {"insight", "trainer", "preprocess", "configs"},
    "cloud": {"cloud", "trainer", "preprocess", "configs"},
    # It imports programs by name, when they are asked for.
    "commands": {"commands", "configs"},
}
_ENGINES = {
    "preprocess.backbones",
    "preprocess.images",
    "preprocess.machine",
    "preprocess.records",
    "preprocess.storage",
}
_JOBS = {*_ENGINES, "preprocess.engines", "preprocess.lists"} - {"preprocess.backbones"}
_PIPELINE = {*_JOBS, "preprocess.backbones", "preprocess.beam", "preprocess.jobs", "preprocess.locks"}
# What each sub-package may import beside itself and configs. What lies beside the sub-packages may import all of them.
ROOMS = {
    "preprocess.answers": set(),
    "preprocess.lists": set(),
    "preprocess.records": set(),
    "preprocess.storage": set(),
    "preprocess.locks": {"preprocess.storage"},
    "preprocess.machine": {"preprocess.storage"},
    "preprocess.images": {"preprocess.lists", "preprocess.machine", "preprocess.records", "preprocess.storage"},
    "preprocess.backbones": {
        "preprocess.answers",
        "preprocess.images",
        "preprocess.machine",
        "preprocess.records",
        "preprocess.storage",
    },
    "preprocess.engines": _ENGINES,
    "preprocess.jobs": _JOBS,
    "preprocess.beam": _PIPELINE - {"preprocess.beam"},
    "trainer.storage": {"preprocess.locks", "preprocess.storage"},
    "trainer.data": {"trainer.storage", *_JOBS, "preprocess.backbones"} - {"preprocess.engines"},
    "trainer.evaluation": {"trainer.data"},
    "trainer.training": {
        "trainer.data",
        "trainer.evaluation",
        "trainer.storage",
        "preprocess.machine",
        "preprocess.storage",
    },
    "trainer.search": {"trainer.data", "trainer.evaluation", "trainer.training"},
    "trainer.reports": {"trainer.data", "trainer.evaluation", "trainer.storage", "trainer.training"},
    "trainer.export": {
        "trainer.data",
        "trainer.evaluation",
        "trainer.storage",
        "trainer.training",
        "preprocess.answers",
        "preprocess.backbones",
        "preprocess.images",
        "preprocess.locks",
        "preprocess.records",
    },
    # What the embeddings say of the data. It reads records and photos, and embeds nothing of a set again.
    "insight.neighbours": set(),
    "insight.data": {"trainer.data", "trainer.storage", "preprocess.records"},
    "insight.layout": {"insight.data", "insight.neighbours", "preprocess.machine", "trainer.storage"},
    "insight.index": {"insight.data", "insight.neighbours", "preprocess.records", "trainer.data"},
    # The photo that one searches with is embedded by the network of the set; no record of a set is.
    "insight.queries": {
        "preprocess.backbones",
        "preprocess.engines",
        "preprocess.images",
        "preprocess.lists",
        "preprocess.machine",
        "preprocess.records",
        "trainer.data",
        "trainer.storage",
    },
    # Thumbnails are made of photos as the network saw them.
    "insight.pages": {"insight.data", "preprocess.images", "preprocess.machine", "trainer.data", "trainer.storage"},
    "insight.copies": {"insight.data", "insight.neighbours", "preprocess.images", "preprocess.records"},
    # It needs the description of the model that the sketch belongs to.
    "insight.label_errors": {
        "insight.data",
        "insight.neighbours",
        "insight.pages",
        "preprocess.lists",
        "preprocess.records",
        "trainer.data",
        "trainer.storage",
    },
    "insight.selection": {"insight.label_errors", "insight.neighbours"},
    "insight.drifting": {"insight.data", "insight.queries", "trainer.data", "trainer.export"},
    # What the server answers with --search is what `hugs search` answers: the index is one, and not a copy.
    "serving.search": {
        "insight.data",
        "insight.index",
        "preprocess.images",
        "preprocess.machine",
        "preprocess.records",
        "preprocess.storage",
        "trainer.data",
        "trainer.export",
    },
    "cloud.checkup": set(),
    "pipelines.runners": {"preprocess.storage"},
    "pipelines.splits": {"preprocess.images", "preprocess.records", "preprocess.storage"},
    "pipelines.checks": {*_PIPELINE} - {"preprocess.beam"},
    "pipelines.bottlenecks": {
        *("pipelines.checks", "pipelines.embedding", "pipelines.splits"),
        *("preprocess.backbones", "preprocess.engines", "preprocess.images", "preprocess.jobs", "preprocess.lists"),
        *("preprocess.locks", "preprocess.machine", "preprocess.records", "preprocess.storage"),
    },
    "pipelines.planning": {"pipelines.checks", "pipelines.runners", *_PIPELINE},
    "pipelines.diagnosis": {"pipelines.checks", "preprocess.answers", *_PIPELINE} - {"preprocess.beam"},
    "pipelines.answers": {
        "pipelines.checks",
        "pipelines.embedding",
        "pipelines.planning",
        "pipelines.runners",
        "preprocess.answers",
        *_PIPELINE,
        "trainer.data",
        "trainer.export",
    },
    "pipelines.embedding": {"pipelines.checks", "pipelines.planning", "pipelines.runners", *_PIPELINE},
}
# What a sub-package may take from beside the sub-packages.
FROM_THE_ROOT = {
    "insight.pages": {"trainer.reports.page_templates"},
    "insight.queries": {"trainer.photo_reader"},
    "serving.search": {"serving.decoding", "serving.metrics", "serving.refusals"},
    "cloud.checkup": {"cloud.gcloud", "cloud.hub_images"},
    "pipelines.answers": {"trainer.arguments"},
    "trainer.storage": {"trainer.options"},
    "trainer.training": {"trainer.options"},
    "trainer.search": {"trainer.options"},
}
# Of the trainer, the cloud needs what it takes and what it leaves; without TensorFlow, as all of `cloud` is.
TRAINER_FOR_CLOUD = {"trainer.options", "trainer.export.model_info", "trainer.data.record_sets"}
# To answer, one has to know a model and to read records, without TensorFlow, too.
TRAINER_FOR_ANSWERS = {
    "trainer.arguments",
    "trainer.data.record_parser",
    "trainer.data.record_sets",
    "trainer.data.shard_reader",
    "trainer.export.classifier",
    "trainer.export.head_arrays",
    "trainer.export.model_info",
}
# The server needs the description and the head of a model, and its folder; to search, record sets and their photos.
TRAINER_FOR_SERVING = {
    "trainer.arguments",
    "trainer.data.photos",
    "trainer.data.record_sets",
    "trainer.export.classifier",
    "trainer.export.head_arrays",
    "trainer.export.model_info",
    "trainer.options",
    "trainer.photo_reader",
    "trainer.storage.files",
}
# Where Beam is imported; all else must work without it, for the trainer and for tests.
BEAM = ("preprocess.beam.", "pipelines.")
# What --help must not wait for.
SLOW = {"apache_beam", "tensorflow", "keras"}


def module_name(path: pathlib.Path) -> str:
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


MODULES = sorted(path for package in MAY_IMPORT for path in (ROOT / package).rglob("*.py"))
NAMES = set(map(module_name, MODULES))


def imports(path: pathlib.Path, *, top_level_only: bool = False) -> set[str]:
    tree = ast.parse(path.read_text())
    nodes = tree.body if top_level_only else ast.walk(tree)
    found = set()
    for node in nodes:
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            found.add(node.module)
            found.update(f"{node.module}.{alias.name}" for alias in node.names)
    return found


def imported_modules(path: pathlib.Path) -> set[str]:
    """Modules of ours that a module imports; a package counts only where it is all that is named."""
    return {name for name in imports(path) & NAMES if name not in ROOMS and name not in MAY_IMPORT}


def room_of(name: str) -> str:
    """The sub-package of a module, or its package where it lies beside the sub-packages."""
    parts = name.split(".")
    return ".".join(parts[:2]) if len(parts) > 2 or name in ROOMS else parts[0]


def test_there_are_modules_to_check():
    assert len(MODULES) > 150


def test_every_sub_package_has_its_column():
    folders = {module_name(path) for path in MODULES if path.name == "__init__.py"}
    assert folders - set(MAY_IMPORT) == set(ROOMS)


@pytest.mark.parametrize("path", MODULES, ids=module_name)
def test_packages_import_in_one_direction(path):
    package = module_name(path).split(".")[0]
    ours = {name.split(".")[0] for name in imports(path)} & OURS
    assert ours <= MAY_IMPORT[package]


@pytest.mark.parametrize("path", MODULES, ids=module_name)
def test_sub_packages_import_in_one_direction(path):
    room = room_of(module_name(path))
    if room not in ROOMS:
        return
    for name in imported_modules(path):
        allowed = {room, *ROOMS[room]}
        assert name.startswith("configs.") or room_of(name) in allowed or name in FROM_THE_ROOT.get(room, ()), name


def test_no_two_sub_packages_need_each_other():
    for room, allowed in ROOMS.items():
        seen: set[str] = set()
        queue = [*allowed]
        while queue:
            name = queue.pop()
            if name not in seen:
                seen.add(name)
                queue.extend(ROOMS[name])
        assert room not in seen


def test_sub_packages_import_nothing_of_themselves():
    # Or else --help and the cloud would load TensorFlow.
    assert not [path for path in MODULES if path.name == "__init__.py" and imports(path)]


@pytest.mark.parametrize("path", MODULES, ids=module_name)
def test_beam_appears_only_where_it_may(path):
    name = module_name(path)
    if any(found.split(".")[0] == "apache_beam" for found in imports(path)):
        assert name.startswith(BEAM)


def used_by(package: str, *, of: str) -> set[tuple[str, str]]:
    """Each module of a package with each module of another one that it imports."""
    return {
        (module_name(path), name)
        for path in MODULES
        if module_name(path).startswith(package)
        for name in imported_modules(path)
        if name.startswith(of)
    }


def test_the_cloud_knows_the_trainer_by_its_contracts():
    assert {name for _, name in used_by("cloud", of="trainer")} == TRAINER_FOR_CLOUD


def test_the_pipelines_know_the_trainer_only_to_answer():
    used = used_by("pipelines", of="trainer")
    assert {name for _, name in used} == TRAINER_FOR_ANSWERS
    assert all(module.startswith("pipelines.answers.") for module, _ in used)


def test_the_server_knows_of_the_trainer_what_a_model_is():
    assert {name for _, name in used_by("serving", of="trainer")} == TRAINER_FOR_SERVING


INSIGHT_FOR_SERVING = {
    "insight.data.set_names",
    "insight.index.cells",
    "insight.index.near_photo",
    "insight.index.photo_index",
}


def test_the_server_knows_insight_only_to_search():
    used = used_by("serving", of="insight")
    assert {name for _, name in used} == INSIGHT_FOR_SERVING
    assert all(module.startswith("serving.search.") for module, _ in used)


def reached_from(package: str) -> set[str]:
    """The modules of ours that a package imports, directly or not."""
    modules = {module_name(path): path for path in MODULES}
    seen: set[str] = set()
    queue = [name for name in modules if name.startswith(package)]
    while queue:
        name = queue.pop()
        if name not in seen:
            seen.add(name)
            queue.extend(imports(modules[name]) & set(modules))
    return seen


@pytest.mark.parametrize("package", ["trainer", "serving", "insight", "cloud"])
def test_what_reaches_no_beam_module(package):
    seen = reached_from(package)
    assert "preprocess.records.record_set" in seen
    assert not [name for name in seen if name.startswith(BEAM)]


def test_slow_libraries_are_imported_only_when_needed():
    # TensorFlow, imported too early, also prints a dozen lines that hide ours.
    # Also a wrong path is found seconds later than it could be.
    paths = [*MODULES, ROOT / "demo" / "run.py"]
    programs = [module_name(path) for path in paths if "run_program(main)" in path.read_text()]
    assert {"pipelines.embed", "trainer.task", "cloud.train", "demo.run"} <= set(programs)
    programs += ["trainer.storage.output_locks", "trainer.export.output_folder"]  # They check a training's paths.
    code = f"import sys, {', '.join(programs)}; print(sorted({SLOW!r} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
