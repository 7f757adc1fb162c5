"""The source distribution that Beam workers install: everything in it, and importable without the checkout."""

import pathlib
import shutil
import subprocess
import sys

ROOT = pathlib.Path(__file__).parents[1]
PACKAGES = ("configs", "preprocess", "pipelines", "trainer", "serving", "insight", "cloud", "commands")


def run(*command, cwd):
    done = subprocess.run([sys.executable, *map(str, command)], cwd=cwd, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_a_worker_can_install_and_import_the_source_distribution(tmp_path):
    # From a copy: building leaves folders in the place where it runs.
    source = tmp_path / "source"
    source.mkdir()
    for name in ("setup.py", "pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    for package in PACKAGES:
        shutil.copytree(ROOT / package, source / package, ignore=shutil.ignore_patterns("__pycache__"))
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
    imports += "from configs.recipe import load_recipe, recipe_names\n"
    imports += "print([load_recipe(name).name for name in recipe_names()])"
    assert run("-I", "-c", imports, cwd=tmp_path).strip() == "['flowers', 'hugs']"
