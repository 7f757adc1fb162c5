"""Which package may import which: the column of ARCHITECTURE.md, held by reading every import statement."""

import ast
import pathlib

import pytest

ROOT = pathlib.Path(__file__).parents[1]
OURS = {"configs", "preprocess", "pipelines", "trainer", "cloud", "commands", "demo", "benchmarks", "scripts", "tests"}
MAY_IMPORT = {
    "configs": {"configs"},
    "preprocess": {"preprocess", "configs"},
    "pipelines": {"pipelines", "preprocess", "configs"},
    "trainer": {"trainer", "preprocess", "configs"},
    "cloud": {"cloud", "trainer", "preprocess", "configs"},
    # It imports programs by name, when they are asked for.
    "commands": {"commands", "configs"},
}
# The modules of the trainer that say what it takes and what it leaves; without TensorFlow, as all of `cloud` is.
TRAINER_FOR_CLOUD = {"trainer.options", "trainer.export.model_info", "trainer.data.record_sets"}
# The modules of preprocess that import Beam; all others must work without it, for the trainer and for tests.
BEAM_MODULES = {"preprocess.beam.transforms", "preprocess.beam.counters", "preprocess.beam.beam_storage"}
# What --help must not wait for.
SLOW = {"apache_beam", "tensorflow", "keras"}


def module_name(path: pathlib.Path) -> str:
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


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


MODULES = sorted(path for package in MAY_IMPORT for path in (ROOT / package).rglob("*.py"))


def test_there_are_modules_to_check():
    assert len(MODULES) > 20


@pytest.mark.parametrize("path", MODULES, ids=module_name)
def test_packages_import_in_one_direction(path):
    package = module_name(path).split(".")[0]
    ours = {name.split(".")[0] for name in imports(path)} & OURS
    assert ours <= MAY_IMPORT[package]


@pytest.mark.parametrize("path", MODULES, ids=module_name)
def test_beam_appears_only_where_it_may(path):
    name = module_name(path)
    if any(found.split(".")[0] == "apache_beam" for found in imports(path)):
        assert name in BEAM_MODULES or name.startswith("pipelines.")


def test_the_cloud_knows_the_trainer_by_its_contracts():
    used = {name for path in MODULES if module_name(path).startswith("cloud") for name in imports(path)}
    modules = set(map(module_name, MODULES))
    assert {name for name in used & modules if name.startswith("trainer")} == TRAINER_FOR_CLOUD


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


@pytest.mark.parametrize("package", ["trainer", "cloud"])
def test_what_reaches_no_beam_module(package):
    seen = reached_from(package)
    assert "preprocess.records.record_set" in seen
    assert not seen & BEAM_MODULES


@pytest.mark.parametrize("package", ["configs", "pipelines", "trainer", "cloud"])
def test_slow_libraries_are_imported_only_when_needed(package):
    programs = [path for path in (ROOT / package).glob("*.py") if "run_program(main)" in path.read_text()]
    assert programs or package == "configs"
    for path in programs:
        top_level = {name.split(".")[0] for name in imports(path, top_level_only=True)}
        assert not top_level & SLOW, path
