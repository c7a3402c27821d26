"""The session on a `llama-server`: llama.cpp's own server out of xllamacpp, behind a program of that name."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys

import numpy as np
import psutil
import pytest

import edgeq
from edgeq.errors import EdgeqError
from edgeq.exporters.gguf.export import export

pytest.importorskip("xllamacpp")
pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="the program is a script")

IDS = [72, 101, 108, 111, 9, 200]
SCRIPT = """#!{python}
import sys, time
import xllamacpp

given = dict(zip(sys.argv[1::2], sys.argv[2::2]))
params = xllamacpp.CommonParams()
params.model.path = given["--model"]
params.hostnames, params.port = [given["--host"]], int(given["--port"])
params.n_ctx, params.n_parallel, params.warmup = int(given["--ctx-size"]), 1, False
params.cpuparams.n_threads = params.cpuparams_batch.n_threads = int(given["--threads"])
assert given["--cache-type-k"] == "f32"
params.cache_type_k = params.cache_type_v = xllamacpp.ggml_type.GGML_TYPE_F32
assert given["--flash-attn"] == "off"
params.flash_attn_type = xllamacpp.llama_flash_attn_type.LLAMA_FLASH_ATTN_TYPE_DISABLED
server = xllamacpp.Server(params)
while True:
    time.sleep(1)
"""
ONE = {"threads": 1, "kv_dtype": "f32", "context": 64}


@pytest.fixture(scope="module")
def folder(tmp_path_factory, tiny_weights):
    return export(tiny_weights(), tmp_path_factory.mktemp("server") / "tiny").path


@pytest.fixture
def without_library(tmp_path, monkeypatch):
    """A machine with the program and without the package."""
    program = tmp_path / "bin" / "llama-server"
    program.parent.mkdir()
    program.write_text(SCRIPT.format(python=sys.executable))
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(program.parent), prepend=os.pathsep)
    find = importlib.util.find_spec
    monkeypatch.setattr("edgeq.runtimes.llamacpp.find_spec", lambda name: None if name == "xllamacpp" else find(name))
    return program


def test_it_gives_what_the_library_gives(folder, without_library, monkeypatch):
    with edgeq.load(folder, **ONE) as session:
        assert type(session.engine).__name__ == "ServerEngine"
        found = session.logits(IDS)
        session.engine.rewind(3)
        after = session.engine.decode(7)
        text = session.generate("Hello", max_tokens=8)
        assert session.stats.new_tokens > 1
        process = psutil.Process(session.engine._process.pid)
        with pytest.raises(EdgeqError, match="is not in the model's vocabulary"):
            session.logits([259])
    assert not process.is_running()
    monkeypatch.undo()
    with edgeq.load(folder, **ONE) as session:
        np.testing.assert_allclose(found, _log_softmax(session.logits(IDS)), atol=2e-3)
        np.testing.assert_allclose(after, _log_softmax(session.logits([*IDS[:3], 7]))[-1], atol=2e-3)
        assert session.generate("Hello", max_tokens=8) == text


def test_a_server_that_ends_says_why(folder, without_library):
    without_library.write_text("#!/bin/sh\necho error: no such thing\nexit 1\n")
    with pytest.raises(EdgeqError, match="llama-server cannot load the model: error: no such thing"):
        edgeq.load(folder, **ONE)


def test_it_dies_with_its_parent(folder, without_library):
    if sys.platform != "linux":
        pytest.skip("elsewhere it ends at the interpreter's exit")
    program = (
        "import sys, os, importlib.util, edgeq, edgeq.runtimes.llamacpp as runtime\n"
        "find = importlib.util.find_spec\n"
        "runtime.find_spec = lambda name: None if name == 'xllamacpp' else find(name)\n"
        f"session = edgeq.load({str(folder)!r}, threads=1, kv_dtype='f32', context=64)\n"
        "print(session.engine._process.pid, flush=True)\n"
        "os.kill(os.getpid(), 9)\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    server = int(done.stdout)
    psutil.wait_procs([psutil.Process(server)] if psutil.pid_exists(server) else [], timeout=10)
    assert not psutil.pid_exists(server) or psutil.Process(server).status() == psutil.STATUS_ZOMBIE


def _log_softmax(logits):
    shifted = logits.astype(np.float64) - logits.max(axis=1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))
