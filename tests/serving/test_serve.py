"""The program: its flags, what it refuses, and how it ends."""

from __future__ import annotations

import re
import signal
import socket
import subprocess
import sys

import httpx
import pytest

from configs.errors import InputError
from serving import serve
from serving.options import parse_options
from tests.support.classifiers import jpeg
from tests.support.programs import ROOT, start_program


def test_vertex_says_by_variables_what_flags_say():
    environ = {
        "AIP_STORAGE_URI": "gs://bucket/model",
        "AIP_HTTP_PORT": "8090",
        "AIP_HEALTH_ROUTE": "/v1/endpoints/1/deployedModels/2",
        "AIP_PREDICT_ROUTE": "/v1/endpoints/1/deployedModels/2:predict",
    }
    options = parse_options([], environ)
    assert options.model_dir == ("gs://bucket/model",)
    assert (options.port, options.health_route) == (8090, environ["AIP_HEALTH_ROUTE"])
    assert options.predict_route == environ["AIP_PREDICT_ROUTE"]
    assert options.host == "127.0.0.1"
    given = parse_options(["--model_dir", "a", "--port", "1"], environ)
    assert (given.model_dir, given.port) == (("a",), 1)


def test_several_models_have_names():
    options = parse_options(["--model_dir", "a", "b", "--name", "cats", "--name", "dogs"], {})
    assert list(zip(options.names, options.model_dir, strict=True)) == [("cats", "a"), ("dogs", "b")]


@pytest.mark.parametrize(
    ("flags", "environ", "words"),
    [
        ([], {}, "--model_dir: name the model"),
        (["--model_dir", "a", "b"], {}, "--name: 2 models need as many names"),
        (["--model_dir", "a", "--name", "x/y"], {}, "Received: 'x/y'"),
        (["--model_dir", "a", "b", "--name", "x", "--name", "x"], {}, "each name once"),
        (
            ["--model_dir", "a", "--precision", "int8"],
            {},
            "int8 is calibrated on photos. Name some",
        ),
        (["--model_dir", "a", "--calibrate_with", "b"], {}, "belongs to --precision int8"),
        (["--model_dir", "a", "--port", "70000"], {}, "from 0 to 65535"),
        (["--model_dir", "a", "--max_queue", "0"], {}, "--max_queue must be a whole number of at least 1"),
        (["--model_dir", "a"], {"AIP_HTTP_PORT": "http"}, "AIP_HTTP_PORT: must be a port. Received: 'http'"),
        (["--model_dir", "a"], {"AIP_PREDICT_ROUTE": "predict"}, "predict_route must be a path"),
        (["--model_dir", "http://a"], {}, "opens local paths"),
    ],
)
def test_wrong_flags(flags, environ, words):
    with pytest.raises(InputError, match=re.escape(words)):
        parse_options(flags, environ)


def test_numpy_is_imported_after_the_threads_of_its_library_are_set():
    # OpenBLAS reads the variable once, when NumPy is imported.
    code = "import sys, serving.serve; print('numpy' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"


@pytest.mark.usefixtures("with_extra")
def test_what_is_not_there_is_one_line(tmp_path, monkeypatch):
    flags = ["--port", "0", "--model_dir"]
    with pytest.raises(InputError, match="there is no folder"):
        serve.main([*flags, str(tmp_path / "none")])
    with pytest.raises(InputError, match="holds no model"):
        serve.main([*flags, str(tmp_path)])
    with pytest.raises(InputError, match="recipe 'none'"):
        serve.main([*flags, str(tmp_path), "--recipe", "none"])
    with pytest.raises(InputError, match="--host: 'no host'"):
        serve.main([*flags, str(tmp_path), "--host", "no host"])
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(InputError, match=f"--port: {port} is used by another program"):
            serve.main(["--model_dir", str(tmp_path), "--port", str(port)])
    monkeypatch.setitem(__import__("sys").modules, "uvicorn", None)
    with pytest.raises(InputError, match=r"serve: needs uvicorn.*\[serve\]"):
        serve.main([*flags, str(tmp_path)])


@pytest.mark.usefixtures("with_extra")
def test_sigterm_answers_what_is_there_and_ends(model_dir):
    process = start_program(
        [
            *("-m", "tests.support.tiny_program", "serving.serve", "--model_dir", model_dir, "--port", "0"),
            *("--engine", "tensorflow", "--precision", "float32"),
        ],
        tensorflow=True,
    )
    try:
        line = process.stdout.readline()
        assert line.startswith("serving hugs at http://127.0.0.1:"), process.stderr.read()
        url = line.split()[-1]
        port = int(url.rstrip("/").rpartition(":")[2])
        assert httpx.post(f"{url}predict", content=jpeg(0)).status_code == 200
        photo = jpeg(1)
        with socket.create_connection(("127.0.0.1", port)) as client, httpx.Client() as idle:
            assert idle.get(f"{url}readyz").status_code == 200
            head = f"POST /predict HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(photo)}\r\n\r\n"
            client.sendall(head.encode() + photo[:100])
            assert httpx.get(f"{url}healthz").status_code == 200  # The loop has read what was sent before.
            process.send_signal(signal.SIGTERM)
            assert "SIGTERM: the server ends" in "".join(iter_until(process.stderr, "SIGTERM"))
            client.sendall(photo[100:])
            answer = b"".join(iter(lambda: client.recv(65536), b""))
            assert answer.startswith(b"HTTP/1.1 200 ") and b'"predictions"' in answer
        _, stderr = process.communicate(timeout=60)
        assert process.returncode == 0
        assert "POST predict 200" in stderr
        assert "Traceback" not in stderr
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(("127.0.0.1", port))
    finally:
        process.kill()
        process.communicate()


def iter_until(stream, words):
    for line in stream:
        yield line
        if words in line:
            return
