"""Installing from a lock: what it lists and nothing else, whatever an index has that is newer.

A small index on loopback stands for the package registry. It has newer releases of everything, which nobody locked.
"""

from __future__ import annotations

import contextlib
import hashlib
import http.server
import os
import pathlib
import shutil
import subprocess
import sys
import tarfile
import threading
import zipfile

import pytest

from scripts.install_environment import entries, link_to_elsewhere, uv_variables
from tests.support.makefile import copy_makefile

ROOT = pathlib.Path(__file__).parents[2]
PROGRAM = ROOT / "scripts" / "install_environment.py"
UV = pathlib.Path(sys.prefix) / "bin" / "uv"
INSTALLERS = [
    "pip",
    pytest.param("uv", marks=pytest.mark.skipif(not UV.exists(), reason="uv is not installed: `make setup` does")),
]


def add_wheel(folder: pathlib.Path, name: str, version: str, *, requires=(), extras=(), code="") -> str:
    """Writes a wheel with one module and returns its SHA-256."""
    path = folder / f"{name.replace('-', '_')}-{version}-py3-none-any.whl"
    info = f"{name.replace('-', '_')}-{version}.dist-info"
    metadata = [f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n"]
    metadata += [f"Provides-Extra: {extra}\n" for extra in extras]
    metadata += [f"Requires-Dist: {line}\n" for line in requires]
    with zipfile.ZipFile(path, "w") as wheel:
        wheel.writestr(f"{name.replace('-', '_')}.py", f"version = {version!r}\n{code}")
        wheel.writestr(f"{info}/METADATA", "".join(metadata))
        wheel.writestr(
            f"{info}/WHEEL", "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        )
        names = [*wheel.namelist(), f"{info}/RECORD"]
        wheel.writestr(f"{info}/RECORD", "".join(f"{one},,\n" for one in names))
    return hashlib.sha256(path.read_bytes()).hexdigest()


@contextlib.contextmanager
def serve(folder: pathlib.Path):
    """An index of the wheels in a folder (PEP 503), and what was asked of it."""
    asked: list[str] = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            asked.append(self.path)
            kind, _, name = self.path.strip("/").partition("/")
            if kind == "files":
                content = (folder / name).read_bytes()
            else:
                wheels = sorted(folder.glob(f"{name.strip(chr(47)).replace(chr(45), chr(95))}-*"))
                links = [f'<a href="/files/{path.name}">{path.name}</a>' for path in wheels]
                content = f"<!DOCTYPE html><html><body>{' '.join(links)}</body></html>".encode()
            self.send_response(200 if content else 404)
            self.send_header("Content-Type", "text/html" if kind != "files" else "application/octet-stream")
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *_):
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/simple", asked
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@pytest.fixture
def index(tmp_path):
    """An index in which everything has a newer release, and the lock of the older ones."""
    folder = tmp_path / "wheels"
    folder.mkdir()
    locked = {
        "hugs-test-auth": add_wheel(
            folder,
            "hugs-test-auth",
            "1.0",
            requires=['hugs-test-ssl>=1; extra == "ssl"'],
            extras=["ssl"],
        ),
        "hugs-test-ssl": add_wheel(folder, "hugs-test-ssl", "1.0"),
        "hugs-test-query": add_wheel(folder, "hugs-test-query", "1.0", requires=["hugs-test-auth[ssl]>=1,<3"]),
    }
    for name in locked:
        add_wheel(folder, name, "2.0", requires=["hugs-test-unheard-of"])
    lock = tmp_path / "the.lock"
    write_lock(lock, locked)
    with serve(folder) as (url, asked):
        yield url, lock, locked, asked


def write_lock(path, digests):
    path.write_text("# a comment\n" + "".join(f"{n}==1.0 \\\n    --hash=sha256:{d}\n" for n, d in digests.items()))


@pytest.fixture(scope="module")
def empty_environment(tmp_path_factory):
    """A new virtual environment, made once: the tests copy nothing into it but packages of their own."""
    folder = tmp_path_factory.mktemp("empty") / "venv"
    subprocess.run([sys.executable, "-m", "venv", folder], check=True)
    return folder


@pytest.fixture
def environment(empty_environment, tmp_path):
    folder = tmp_path / "an environment"
    shutil.copytree(empty_environment, folder, symlinks=True)
    if UV.exists():
        (folder / "bin" / "uv").symlink_to(UV)
    return folder


def install(environment, *arguments, index_url, installer):
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("PIP_", "UV_"))}
    variables = {
        "PIP_CONFIG_FILE": os.devnull,
        "PIP_INDEX_URL": index_url,
        "PIP_RETRIES": "0",
        "UV_HTTP_RETRIES": "0",
        "UV_NO_CACHE": "1",
        "PIP_NO_CACHE_DIR": "1",
    }
    return subprocess.run(
        [sys.executable, PROGRAM, environment, "--installer", installer, *map(str, arguments)],
        env={**clean, **variables},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def versions_in(environment):
    done = subprocess.run(
        [environment / "bin" / "python", "-m", "pip", "list", "--format=freeze", "--disable-pip-version-check"],
        capture_output=True,
        text=True,
        check=True,
    )
    return {line for line in done.stdout.split() if line.startswith("hugs-test")}


@pytest.mark.parametrize("installer", INSTALLERS)
def test_newer_releases_that_nobody_locked_do_not_matter(environment, index, installer):
    url, lock, _, asked = index
    done = install(environment, "--keep", "--lock", lock, index_url=url, installer=installer)
    assert done.returncode == 0, done.stdout + done.stderr
    assert versions_in(environment) == {"hugs-test-auth==1.0", "hugs-test-ssl==1.0", "hugs-test-query==1.0"}
    assert f"with {installer}" in done.stdout
    assert "checked: the requirements of every package are installed" in done.stdout
    assert not [path for path in asked if "unheard" in path or "2.0" in path]


@pytest.mark.parametrize("installer", INSTALLERS)
def test_a_lock_that_lacks_something_fails_at_once(environment, index, installer):
    url, lock, digests, _ = index
    # (Of what only an extra asks for, neither installer says that it is missing: tests/test_locks.py does.)
    write_lock(lock, {name: digest for name, digest in digests.items() if name != "hugs-test-auth"})
    done = install(environment, "--keep", "--lock", lock, index_url=url, installer=installer)
    assert done.returncode == 2
    assert "error: the lock is not complete" in done.stderr
    assert "hugs-test-auth" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("installer", INSTALLERS)
def test_a_file_with_another_checksum_is_not_installed(environment, index, installer):
    url, lock, digests, _ = index
    write_lock(lock, {**digests, "hugs-test-ssl": "0" * 64})
    done = install(environment, "--keep", "--lock", lock, index_url=url, installer=installer)
    assert done.returncode == 2
    assert f"error: {installer} could not install {lock}" in done.stderr
    assert "hugs-test-ssl==1.0" not in versions_in(environment)


@pytest.mark.parametrize("installer", INSTALLERS)
def test_an_index_that_cannot_be_reached_is_one_line_at_the_end(environment, index, installer):
    _, lock, _, _ = index
    done = install(environment, "--keep", "--lock", lock, index_url="http://127.0.0.1:9/simple", installer=installer)
    assert done.returncode == 2
    assert done.stderr.strip().splitlines()[-1].startswith(f"error: {installer} could not install")
    assert "Traceback" not in done.stderr


def test_an_environment_is_made_anew_and_pip_does_the_work_where_uv_is_not_locked(index, tmp_path):
    url, lock, _, _ = index
    folder = tmp_path / "new"
    folder.mkdir()
    (folder / "left over").write_text("")
    done = install(folder, "--lock", lock, index_url=url, installer="auto")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "with pip" in done.stdout
    assert not (folder / "left over").exists()
    assert len(versions_in(folder)) == 3


def test_pip_does_the_work_where_uv_cannot_be_had(index, environment):
    url, lock, digests, _ = index
    (environment / "bin" / "uv").unlink(missing_ok=True)
    write_lock(lock, digests)
    with open(lock, "a") as stream:
        stream.write(f"uv==0.0.1 ; sys_platform == 'none' \\\n    --hash=sha256:{'0' * 64}\n")
    done = install(environment, "--keep", "--lock", lock, index_url=url, installer="auto")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "with pip" in done.stdout
    assert len(versions_in(environment)) == 3


def test_uv_is_told_what_pip_is_configured_with():
    configured = """\
global.index-url='https://everybody.example/simple'
install.index-url='https://installs.example/simple'
global.extra-index-url='https://one.example/simple\\nhttps://two.example/simple'
global.unknown='1'
:env:.find-links='/one /two'
:env:.cert='/etc/ssl/ours.pem'
"""
    assert uv_variables(configured) == {
        "UV_DEFAULT_INDEX": "https://installs.example/simple",
        "UV_INDEX": "https://one.example/simple https://two.example/simple",
        "UV_FIND_LINKS": "/one,/two",
        "SSL_CERT_FILE": "/etc/ssl/ours.pem",
    }


def test_entries_of_the_real_lock():
    found = dict(entries(str(ROOT / "requirements.lock")))
    assert len(found) > 150
    assert found["uv"].startswith("uv==")
    assert found["uv"].count("--hash=sha256:") > 3
    assert "==" not in found["uv"].partition("==")[2]


@pytest.mark.parametrize("name", ["plain", "a b'c é"])
def test_an_environment_that_was_moved_or_copied_is_forgotten(tmp_path, name):
    first, second = tmp_path / name / "first", tmp_path / name / "second"
    assert subprocess.run([sys.executable, "-m", "venv", first / ".venv"], check=False).returncode == 0
    link = tmp_path / "link"
    link.symlink_to(first)
    shutil.copytree(first, second, symlinks=True)
    stamps = [".venv/installed", ".venv/project"]
    for checkout, kept in ((first, True), (link, True), (second, False)):
        for stamp in stamps:
            (checkout / stamp).touch()
        command = [sys.executable, PROGRAM, ".venv", "--forget", *stamps, ".venv/demo-photos"]
        assert subprocess.run(command, cwd=checkout, check=False).returncode == 0
        assert [(checkout / stamp).exists() for stamp in stamps] == [kept, kept]


def test_make_refuses_a_link_to_the_environment_of_another_checkout(tmp_path):
    for name in ("here", "elsewhere"):
        (tmp_path / name / "scripts").mkdir(parents=True)
    here, elsewhere = tmp_path / "here", tmp_path / "elsewhere"
    (elsewhere / ".venv").mkdir()
    for name in ("installed", "project", "kept"):
        (elsewhere / ".venv" / name).touch()
    shutil.copy(PROGRAM, here / "scripts")
    copy_makefile(here)  # Without the link, make would install.
    (here / ".venv").symlink_to("../elsewhere/.venv")
    # (Not those of the make that runs the tests.)
    clean = {name: value for name, value in os.environ.items() if name not in ("MAKEFLAGS", "MAKELEVEL", "MFLAGS")}
    for target in ("setup", "test", "lint", "demo", "cluster"):
        command = ["make", target, f"PYTHON={sys.executable}"]
        done = subprocess.run(command, cwd=here, env=clean, capture_output=True, text=True, timeout=60)
        assert (done.returncode, done.stdout) == (2, "")
        line, of_make = done.stderr.splitlines()
        assert line.startswith(f"error: .venv is a link to {elsewhere}/.venv, and make would ")
        assert "Remove the link with `rm .venv`" in line
        assert of_make.startswith("make: *** [")
    assert len(list((elsewhere / ".venv").iterdir())) == 3
    assert subprocess.run(["make", "clean"], cwd=here, env=clean, capture_output=True).returncode == 0
    assert len(list((elsewhere / ".venv").iterdir())) == 3
    assert not (here / ".venv").is_symlink()


def test_what_is_a_link_to_elsewhere(tmp_path):
    checkout = tmp_path / "checkout"
    (checkout / "inside").mkdir(parents=True)
    (tmp_path / "link").symlink_to(checkout)
    for name, target in (("none", "gone"), ("beside", "inside"), ("outside", ".."), ("dangling", "../gone")):
        (checkout / name).symlink_to(target)
    for of_checkout in (checkout, tmp_path / "link"):
        found = {name: link_to_elsewhere(f"{of_checkout}/{name}") for name in os.listdir(checkout)}
        elsewhere = {"outside": str(tmp_path), "dangling": str(tmp_path / "gone")}
        assert found == {"inside": "", "none": "", "beside": "", **elsewhere}


def test_nothing_is_added_to_what_is_no_environment(tmp_path):
    command = [sys.executable, PROGRAM, tmp_path / "none", "--keep", "--project", "."]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("error: ") and done.stderr.count("\n") == 1


def test_another_python_is_refused(tmp_path):
    other = shutil.which("python3.10") or shutil.which("python3.9")
    works = other and subprocess.run([other, "--version"], capture_output=True, check=False).returncode == 0
    if not works:
        pytest.skip("there is no Python that is too old")
    done = subprocess.run([other, PROGRAM, tmp_path / "venv"], capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert done.stderr.startswith("error: Python 3.11, 3.12, 3.13 is needed. Found: 3.")
    assert len(done.stderr.splitlines()) == 1


# A build backend of one module, which goes by the name of the one that the lock has for that.
BACKEND = """
import pathlib, zipfile

def build_wheel(wheel_directory, config_settings=None, metadata_directory=None):
    name, info = "hugs_test_source-1.0-py3-none-any.whl", "hugs_test_source-1.0.dist-info"
    with zipfile.ZipFile(pathlib.Path(wheel_directory) / name, "w") as wheel:
        wheel.writestr("hugs_test_source.py", f"built_with = {version!r}")
        wheel.writestr(f"{info}/METADATA", "Metadata-Version: 2.1\\nName: hugs-test-source\\nVersion: 1.0\\n")
        wheel.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\\nRoot-Is-Purelib: true\\nTag: py3-none-any\\n")
        wheel.writestr(f"{info}/RECORD", "")
    return name
"""


@pytest.mark.parametrize("installer", INSTALLERS)
def test_what_comes_as_source_is_built_with_what_the_lock_has(environment, index, installer, tmp_path):
    url, lock, _, asked = index
    wheels = tmp_path / "wheels"
    source = tmp_path / "hugs_test_source-1.0"
    source.mkdir()
    (source / "pyproject.toml").write_text('[build-system]\nrequires = ["setuptools"]\nbuild-backend = "setuptools"\n')
    (source / "PKG-INFO").write_text("Metadata-Version: 2.1\nName: hugs-test-source\nVersion: 1.0\n")
    with tarfile.open(wheels / "hugs_test_source-1.0.tar.gz", "w:gz") as stream:
        stream.add(source, source.name)
    digest = hashlib.sha256((wheels / "hugs_test_source-1.0.tar.gz").read_bytes()).hexdigest()
    write_lock(lock, {"hugs-test-source": digest, "setuptools": add_wheel(wheels, "setuptools", "1.0", code=BACKEND)})
    add_wheel(wheels, "setuptools", "999.0", code=BACKEND)
    done = install(environment, "--keep", "--lock", lock, index_url=url, installer=installer)
    assert done.returncode == 0, done.stdout + done.stderr
    program = "import hugs_test_source; print(hugs_test_source.built_with)"
    here = subprocess.run([environment / "bin" / "python", "-c", program], capture_output=True, text=True, check=True)
    assert here.stdout == "1.0\n"
    assert not [path for path in asked if "999" in path]
