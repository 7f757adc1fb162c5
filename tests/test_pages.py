"""What messages and pages tell people to install: this checkout or a lock, never a name that a stranger answers to."""

import pathlib
import re
import subprocess
import tomllib

import pytest
import yaml

from configs.install_hint import install_hint
from configs.printed_commands import PROGRAMS
from tests.support.page_commands import commands_of, unknown_flags

ROOT = pathlib.Path(__file__).parents[1]
VERSION = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
_SKIPPED = ("tests/", "LICENSE", "requirements", "NOTES-")
# A path, a lock, or a name that stands for one; what follows `pip install` and its flags.
_PATHS = re.compile(r"""^['"]?(\.|/|\$\{here\}|\{|CHECKOUT|\$package|-r\b|--requirement\b|-e\b|--editable\b)""")
_PAGES = (
    *("README.md", "CONTRIBUTING.md", "SECURITY.md", "ARCHITECTURE.md"),
    *(
        "docs/predict.md",
        "docs/cloud.md",
        "docs/first-run.md",
        "docs/clusters.md",
        "docs/promises.md",
        "docs/storage.md",
        "docs/python.md",
        "docs/formats.md",
        "docs/sizes.md",
        "docs/glossary.md",
        "docs/insight.md",
        "docs/serving.md",
    ),
)
_FLAGS = re.compile(r"^(--no-cache-dir|--no-deps|--require-hashes|--no-build-isolation|-q|--quiet)\s+")


def sources():
    listed = subprocess.run(["git", "ls-files", "-co", "--exclude-standard"], cwd=ROOT, capture_output=True, text=True)
    if listed.returncode != 0:
        pytest.skip("this is no git checkout")
    for name in listed.stdout.split("\n"):
        path = ROOT / name
        if name and not name.startswith(_SKIPPED) and path.is_file():
            try:
                yield name, path.read_text()
            except UnicodeDecodeError:
                continue


def pip_installs(text):
    for match in re.finditer(r"pip install\b[ \t]*([^\n]*)", text):
        words = match[1]
        while flag := _FLAGS.match(words):
            words = words[flag.end() :]
        yield words


def test_what_is_to_be_installed_is_this_checkout_or_a_lock():
    found = [(name, words) for name, text in sources() for words in pip_installs(text)]
    assert len(found) > 5
    named = [(name, words) for name, words in found if words and not _PATHS.match(words)]
    # Sentences that speak of pip without telling anybody what to type.
    named = [(name, words) for name, words in named if not words.startswith(("`", "NAME==VERSION`"))]
    assert not named


@pytest.mark.parametrize("words", ["hugs", "'hugs[openvino]'", "-U hugs", "tensorflow"])
def test_a_name_on_an_index_is_noticed(words):
    (found,) = pip_installs(f"Install it: pip install {words}\n")
    assert not _PATHS.match(found)


def test_the_hint_runs_as_it_is_printed(monkeypatch, tmp_path):
    hint = install_hint("openvino")
    assert f"{ROOT}[openvino]" in hint
    assert "make setup" in hint
    monkeypatch.setattr("configs.install_hint.REPOSITORY", str(tmp_path / "site-packages"))
    assert "pip install 'CHECKOUT[openvino]'" in install_hint("openvino")


def test_the_changelog_begins_with_this_version():
    headings = re.findall(r"(?m)^## (.*)$", (ROOT / "CHANGELOG.md").read_text())
    versions = [heading for heading in headings if heading != "Unreleased"]
    assert re.fullmatch(rf"{re.escape(VERSION)} - \d{{4}}-\d\d-\d\d", versions[0])
    assert all(re.fullmatch(r"\d+\.\d+\.\d+ - \d{4}-\d\d-\d\d", version) for version in versions)


@pytest.mark.parametrize("name", _PAGES)
def test_links_within_the_pages_lead_somewhere(name):
    page = ROOT / name
    links = re.findall(r"\]\((?!https?:)([^)#]*)(#[^)]*)?\)", page.read_text())
    for path, anchor in links:
        target = page.parent / path if path else page
        assert target.exists(), path
        if anchor:
            headings = re.findall(r"(?m)^#+ (.*)$", target.read_text())
            anchors = {"#" + re.sub(r"[^a-z0-9_ -]", "", heading.lower()).replace(" ", "-") for heading in headings}
            assert anchor in anchors, f"{path}{anchor}"


def test_the_pages_list_all_pages():
    assert {path.relative_to(ROOT).as_posix() for path in (ROOT / "docs").glob("*.md")} <= set(_PAGES)
    readme = (ROOT / "README.md").read_text()
    pages = readme[readme.index("\n## More\n") :]
    assert [name for name in _PAGES if name != "README.md" and f"]({name})" not in pages] == []


def test_programs_and_flags_in_the_commands_of_the_pages_exist():
    commands = [words for name in _PAGES for words in commands_of(name) if words[0] != "gcloud"]
    # A few are placeholders, such as `hugs ...`.
    commands = [words for words in commands if words[1:] and words[1] not in ("...", "--help", "SUBCOMMAND")]
    assert len(commands) > 60
    names = {words[1] for words in commands if words[0] == "hugs"}
    assert names <= set(PROGRAMS)
    found = [(words, unknown) for words in commands if (unknown := unknown_flags(words))]
    assert found == []


def test_the_readme_says_what_each_program_is_for():
    readme = (ROOT / "README.md").read_text()
    table = readme[readme.index("\n## Which program do I need?\n") :].partition("\n## ")[2].partition("\n## ")[0]
    assert set(re.findall(r"`hugs (\w+)`", table.partition("\n\nEach is also")[0])) == set(PROGRAMS)


def test_the_readme_names_the_extras():
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    sentence = re.search(r"The extras (.*?) do not need each other", (ROOT / "README.md").read_text(), re.DOTALL)
    assert set(re.findall(r"`(\w+)`", sentence[1])) == set(extras)


def test_what_is_started_on_clusters_is_of_the_version_of_beam():
    from apache_beam import __version__
    from apache_beam.options.pipeline_options import FlinkRunnerOptions

    compose = yaml.safe_load((ROOT / "docs/flink-compose.yaml").read_text())
    images = {name: service["image"] for name, service in compose["services"].items()}
    flink = images["jobmanager"].removeprefix("flink:")
    assert flink in FlinkRunnerOptions.PUBLISHED_FLINK_VERSIONS
    assert images["taskmanager1"] == images["taskmanager2"] == f"flink:{flink}"
    job_server = f"apache/beam_flink{flink}_job_server"
    assert images["jobserver"] == f"{job_server}:{__version__}"
    assert f"PRISM_VERSION := v{__version__}\n" in (ROOT / "Makefile").read_text()
    page = (ROOT / "docs/clusters.md").read_text()
    assert f"{job_server}:{__version__}" in page
    assert f"cmd/prism@v{__version__} " in page


def test_every_test_that_the_promises_name_is_there():
    text = (ROOT / "docs" / "promises.md").read_text()
    source, named = "", 0
    for path, test in re.findall(r"`((?:[pe]/|tests/)[\w/]+\.py)?(?:::(\w+))?`", text):
        if path:
            folders = {"p/": "tests/preprocess/", "e/": "tests/pipelines/"}
            source = (ROOT / (folders.get(path[:2], path[:2]) + path[2:])).read_text()
        if test:
            named += 1
            assert re.search(rf"(?m)^def {test}\b", source), f"{path} {test}"
    assert named > 50


def test_the_module_map_has_every_module_in_its_place():
    text = (ROOT / "ARCHITECTURE.md").read_text()
    text = text[text.index("## Module map") : text.index("## Words")]
    for package in ("preprocess", "trainer", "serving", "insight", "pipelines"):
        for folder in (ROOT / package, *sorted(path.parent for path in (ROOT / package).glob("*/__init__.py"))):
            modules = {path.stem for path in folder.glob("*.py")} - {"__init__"}
            name = f"**`{folder.relative_to(ROOT).as_posix()}/`**"
            section = text[text.index(name) + len(name) :].partition("**`")[0].partition("###")[0]
            assert set(re.findall(r"(?m)^- `(\w+)`: \S", section)) == modules, name


_UNITS = {
    "ms": 1e-3,
    "s": 1,
    "min": 1,
    "h": 1,
    "KB": 1e3,
    "MB": 1e6,
    "GB": 1e9,
    "images/s": 1,
    "steps": 1,
    "MB/s": 1e6,
    "$": 1,
}


def test_the_calculations_of_sizes_are_right_and_use_the_rates_of_the_readme():
    page = re.sub(r"(?<!\n)\n(?=[^\n|#-]) *", " ", (ROOT / "docs" / "sizes.md").read_text())
    readme = (ROOT / "README.md").read_text()
    calculations = re.findall(r"`([^`=]+) = \$?([\d.,]+) ?([^`]*)`", page)
    assert len(calculations) > 20
    for formula, result, unit in calculations:
        terms = re.findall(r"\$?([\d.,]+) ?(images/s|MB/s|KB|MB|GB|ms|min|steps|s|h)?\b|([/x()+])", formula)
        numbers = [float(number.replace(",", "")) * _UNITS[of or "s"] for number, of, _ in terms if number]
        operators = iter(numbers)
        value = eval("".join(str(next(operators)) if number else sign.replace("x", "*") for number, _, sign in terms))
        assert value == pytest.approx(float(result.replace(",", "")) * _UNITS[unit or "s"], rel=0.02), formula
    for rate in re.findall(r"[\d,]+ / \(?(\d+\.\d+)", page):
        assert rate == "0.2" or f"| {rate} |" in readme, rate
    measured = page[page.index("## Measured") :]
    assert all(text in measured for text in ("2.4 s; 6.6 s", "67 s", "0.48 GB"))
    assert "$1.53" in readme


def test_the_messages_that_the_readme_explains_are_printed():
    readme = (ROOT / "README.md").read_text()
    table = readme[readme.index("| you see |") :].partition("\n\n")[0]
    source = "".join(text for name, text in sources() if name.endswith(".py"))
    source = re.sub(r'"\s*\n\s*f?"', "", source)  # A message may go over several lines.
    fragments = [
        part.strip()
        for seen in re.findall(r"(?m)^\| (`[^|]*) \|", table)
        for message in re.findall(r"`([^`]+)`", seen)
        for part in re.split(r"\.\.\.|\(10\)", message)
    ]
    assert len(fragments) > 15
    assert [part for part in fragments if part not in source] == []
