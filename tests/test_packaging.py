"""The source distribution that Beam workers install: everything in it, and importable without the checkout."""

import os
import pathlib
import shutil
import subprocess
import sys
import sysconfig

import pytest

ROOT = pathlib.Path(__file__).parents[1]
PACKAGES = ("configs", "preprocess", "pipelines", "trainer", "serving", "insight", "cloud", "commands")


def run(*command, cwd, **environment):
    done = subprocess.run(
        [sys.executable, *map(str, command)],
        cwd=cwd,
        capture_output=True,
        text=True,
        check=False,
        env=os.environ | environment,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture
def source(tmp_path):
    """A copy of the checkout without what is compiled here. Building leaves folders in the place where it runs."""
    source = tmp_path / "source"
    source.mkdir()
    for name in ("setup.py", "pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    for package in PACKAGES:
        shutil.copytree(ROOT / package, source / package, ignore=shutil.ignore_patterns("__pycache__", "*.so"))
    return source


def has_compiler():
    compiler = (sysconfig.get_config_var("CC") or "cc").split()[0]
    return shutil.which(compiler) and (pathlib.Path(sysconfig.get_paths()["include"]) / "Python.h").exists()


SAY_WHAT_RESIZES = "from preprocess.images.resample import resize_state; print(resize_state())"


def test_without_a_compiler_the_project_is_built_without_the_compiled_loops(source, tmp_path):
    run("setup.py", "-q", "build", "--build-lib", tmp_path / "built", cwd=source, CC="/bin/false")
    assert not list((tmp_path / "built").rglob("*.so"))
    code = f"import sys; sys.path.insert(0, {str(tmp_path / 'built')!r}); {SAY_WHAT_RESIZES}"
    said = run("-I", "-c", code, cwd=tmp_path)
    assert said == "Pillow (not compiled when the project was installed: no C compiler?)\n"


@pytest.mark.skipif(not has_compiler(), reason="there is no C compiler here")
def test_with_a_compiler_they_are_built_for_every_python_and_again_after_an_edit(source, tmp_path):
    run("setup.py", "-q", "build_ext", "--inplace", cwd=source)
    (compiled,) = (source / "preprocess").rglob("*.so")
    assert compiled == source / "preprocess/images/_pixels.abi3.so"
    code = f"import sys; sys.path.insert(0, {str(source)!r}); {SAY_WHAT_RESIZES}"
    assert run("-I", "-c", code, cwd=tmp_path).startswith("compiled (")
    with open(source / "preprocess/images/_pixels.c", "a") as stream:
        stream.write("/* another version */\n")
    assert "compiled from another version" in run("-I", "-c", code, cwd=tmp_path)
    run("setup.py", "-q", "build_ext", "--inplace", cwd=source)
    assert run("-I", "-c", code, cwd=tmp_path).startswith("compiled (")


def test_a_worker_can_install_and_import_the_source_distribution(source, tmp_path):
    run("setup.py", "-q", "sdist", "-d", tmp_path / "dist", cwd=source)
    (sdist,) = (tmp_path / "dist").iterdir()
    site = tmp_path / "site"
    flags = ("--quiet", "--no-deps", "--no-build-isolation", "--no-index", "--target", site)
    run("-m", "pip", "install", *flags, sdist, cwd=tmp_path)
    modules = sorted(
        ".".join(path.relative_to(ROOT).with_suffix("").parts)
        for package in PACKAGES
        for path in (ROOT / package).rglob("[!_]*.py")
    )
    imports = f"import sys; sys.path.insert(0, {str(site)!r}); import importlib, configs\n"
    imports += f"assert configs.__file__.startswith({str(site)!r})\n"
    imports += f"for name in {modules!r}: importlib.import_module(name)\n"
    assert all((site / package / "py.typed").exists() for package in PACKAGES)
    imports += "from trainer.reports.page_templates import template_names, load\n"
    imports += "assert {'report.html', 'style.css'} <= set(template_names()) and [*map(load, template_names())]\n"
    imports += "from preprocess.backbones.graph_template import find_template\n"
    imports += "assert find_template('inception_v3') and find_template('efficientnet_lite2')\n"
    imports += "from configs.recipe import load_recipe, recipe_names\n"
    imports += "print([load_recipe(name).name for name in recipe_names()])\n"
    names, resizes = run("-I", "-c", imports + SAY_WHAT_RESIZES, cwd=tmp_path).splitlines()
    assert names == "['flowers', 'hugs']"
    assert resizes.startswith("compiled (" if has_compiler() else "Pillow (")
