"""Commands that programs print for the user. They run as printed: in the current folder, in any environment.

Every message that names a command of the project gets it from here.
"""

from __future__ import annotations

import os
import shlex
import shutil
import sys

from configs.source_files import REPOSITORY

# The distribution, as pyproject.toml names it. On package indexes, the name `hugs` belongs to another project.
DISTRIBUTION = "hugs-image-classifier"
# Each subcommand of `hugs`, the module whose `main(argv)` it runs, and what it does, in the order in which `hugs` lists
# them: from photos to answers, then what helps, then old work. README has a table of what each is for.
PROGRAMS = {
    "ingest": ("pipelines.ingest", "makes lists from a folder of labelled photos"),
    "plan": ("pipelines.plan", "estimates the time and cost of embedding the lists"),
    "embed": ("pipelines.embed", "makes records from a list of images: one embedding for each image"),
    "preproc": ("pipelines.preproc", "makes records from all lists of a recipe, as hugs_preproc.sh does"),
    "train": ("trainer.task", "trains a model on records, and writes metrics and a report"),
    "predict": ("trainer.predict", "predicts the labels of photos, and prints them"),
    "predict_all": ("pipelines.predict", "predicts the labels of any number of photos, and writes them to files"),
    "serve": ("serving.serve", "answers requests with a model: a web page, and an API for programs"),
    "images_to_json": ("cloud.images_to_json", "writes photos as the JSON that an endpoint takes"),
    "classify": ("preprocess.classify", "says which of ImageNet's classes photos show, without training"),
    "audit": ("insight.audit", "finds labels that are probably wrong, for a person to decide about"),
    "relabel": ("insight.relabel", "applies corrections to a list of labelled images"),
    "twins": ("insight.twins", "finds photos that are copies of each other, within a set and across sets"),
    "map": ("insight.map", "draws a map of photos, with similar ones near each other, as one page"),
    "search": ("insight.search", "finds the photos of a set that are most similar to a photo"),
    "why": ("pipelines.why", "tells what became of a photo, a set, a training or a job, and what goes on from there"),
    "next": ("insight.next", "says which unlabelled photos to label next, and what that would bring"),
    "drift": ("insight.drift", "says whether new photos are like those that a model was trained on"),
    "doctor": ("cloud.doctor", "says what a project in the cloud lacks for the jobs, and how to mend it"),
    "backbones": ("preprocess.list_backbones", "lists the networks that make embeddings"),
    "graph": ("trainer.graph", "prints the layers of a network or a model, and writes its graph for TensorBoard"),
    "import_bottlenecks": ("pipelines.import_bottlenecks", "makes records from the bottlenecks of retrain.py"),
    "export_frozen": ("trainer.export_frozen", "writes a model as the frozen graph and labels that retrain.py wrote"),
}


def program_words(name: str) -> list[str]:
    """The words that start a program of the project from the current folder.

    Args:
      name: a subcommand of `hugs`.

    Returns:
      `hugs NAME` if that command belongs to this interpreter: with its path if the shell would not find it. Otherwise
      the interpreter and the module, with PYTHONPATH if the interpreter would not find the module.
    """
    hugs = _hugs()
    return [hugs, name] if hugs else _module_words(PROGRAMS[name][0])


def module_words(module: str) -> list[str]:
    """The words that start a module which is a program, as `program_words` if it is a subcommand of `hugs`."""
    names = [name for name, (of_name, _) in PROGRAMS.items() if of_name == module]
    return program_words(names[0]) if names else _module_words(module)


def program_command(name: str, *arguments: str) -> str:
    """A command line of a program of the project, quoted for the shell: `program_command("embed", "--wait")`."""
    return shlex.join([*program_words(name), *arguments])


def hugs_command(*arguments: str) -> str:
    """A command line of `hugs` itself, quoted for the shell: `hugs_command("--help")`."""
    hugs = _hugs()
    return shlex.join([*([hugs] if hugs else _module_words("commands.hugs")), *arguments])


def this_command() -> str:
    """The command line of this process, quoted for the shell, for messages that advise to give it again."""
    spec = getattr(sys.modules["__main__"], "__spec__", None)
    if spec is not None:
        words = module_words(spec.name.removesuffix(".__main__"))
    else:
        path = os.path.abspath(sys.argv[0])
        words = [_short(path, os.path.basename(path))]
    return shlex.join([*words, *sys.argv[1:]])


def tool_command(name: str, *arguments: str) -> str:
    """A command line of another tool of this environment, such as `tensorboard`, quoted for the shell."""
    return shlex.join([_short(os.path.join(os.path.dirname(sys.executable), name), name), *arguments])


def script_command(name: str, *arguments: str, **variables: str) -> str:
    """A command line of a script of the checkout, quoted for the shell.

    Args:
      name: of the script, for example "hugs_train.sh".
      *arguments: of the script.
      **variables: of the environment, which the script gets. PYTHON is passed on if it is set.
    """
    if "PYTHON" in os.environ:
        variables = {"PYTHON": os.environ["PYTHON"], **variables}
    before = [f"{variable}={shlex.quote(value)}" for variable, value in variables.items()]
    return " ".join([*before, shlex.join([_short(os.path.join(REPOSITORY, name), name), *arguments])])


def _hugs() -> str | None:
    """The word that starts the `hugs` of this interpreter; None if it has none."""
    beside = os.path.join(os.path.dirname(sys.executable), "hugs")
    return _short(beside, "hugs") if os.path.isfile(beside) and os.access(beside, os.X_OK) else None


def _short(path: str, name: str) -> str:
    """The shortest word that starts the program at an absolute path. Links are not followed."""
    if shutil.which(name) == path:
        return name
    try:
        relative = os.path.relpath(path)
    except OSError:  # The current folder was deleted.
        return path
    if relative.startswith(os.pardir):
        return path
    return relative if os.sep in relative else os.path.join(os.curdir, relative)


def _module_words(module: str) -> list[str]:
    return [*_module_path(), _short(sys.executable, os.path.basename(sys.executable)), "-m", module]


def _module_path() -> list[str]:
    """What has to stand before an interpreter that would not find the project from the current folder."""
    import importlib.metadata  # here: it costs every other start a few milliseconds

    try:
        if os.path.realpath(os.getcwd()) == os.path.realpath(REPOSITORY):
            return []
    except OSError:  # The current folder was deleted.
        pass
    try:
        importlib.metadata.distribution(DISTRIBUTION)
    except importlib.metadata.PackageNotFoundError:
        return ["env", f"PYTHONPATH={REPOSITORY}"]
    return []
