"""The programs that `edgeq deliver` hands out, run as a person would run them, in a folder with an awkward name."""

from __future__ import annotations

import json
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from edgeq.artifact import read_artifact
from edgeq.deliver import deliver
from edgeq.deliver.delivery import NO_WAY, rows
from edgeq.deliver.facts import facts_of

Made = Callable[..., Path]
PACKAGES = {
    "genai-python": "onnxruntime_genai",
    "openvino-python": "openvino_genai",
    "llamacpp-python": "xllamacpp",
    "transformers": "compressed_tensors",
}
RUN = [
    ("onnx", "edgeq"),
    ("onnx", "genai-python"),
    ("gguf", "edgeq"),
    ("gguf", "llamacpp-python"),
    ("openvino", "edgeq"),
    ("openvino", "openvino-python"),
    ("compressed-tensors", "transformers"),
]


@pytest.mark.parametrize("chat", [True, False], ids=["chat", "base"])
@pytest.mark.parametrize(("to", "way"), RUN, ids=lambda x: str(x))
def test_python_programs_run(made: Made, tmp_path: Path, to: str, way: str, chat: bool) -> None:
    if way in PACKAGES:
        pytest.importorskip(PACKAGES[way])
    if "openvino" in (to, way.split("-")[0]):
        pytest.importorskip("openvino_genai")
    if to == "gguf":
        pytest.importorskip("xllamacpp")
    code = deliver(made(to, chat)).way(way).code
    assert ("hat" in code) == (chat and way != "openvino-python")
    program = tmp_path / "program.py"
    program.write_text(code, "utf-8")
    done = subprocess.run([sys.executable, "-P", str(program)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stdout.strip()


def test_what_a_program_needs_is_without_torch(made: Made) -> None:
    for to in ("onnx", "gguf", "openvino"):
        if to == "openvino":
            pytest.importorskip("openvino")
        install = deliver(made(to)).way("edgeq").install
        assert re.fullmatch(r'pip install edgeq "[a-z]+>=[\d.]+" "tokenizers>=[\d.]+" "jinja2>=[\d.]+"', install)
        assert "torch" not in install


def test_each_kind_has_its_own_ways(made: Made) -> None:
    ids = {to: [way.id for way in deliver(made(to)).ways] for to in ("onnx", "gguf", "gptq")}
    assert ids["onnx"] == ["edgeq", "genai-python", "genai-csharp", "genai-kotlin", "genai-objc"]
    assert ids["gguf"][:4] == ["edgeq", "llamacpp-cli", "llamacpp-server", "ollama"]
    assert ids["gptq"] == ["transformers", "vllm", "sglang"]


@pytest.mark.parametrize("chat", [True, False], ids=["chat", "base"])
@pytest.mark.parametrize(("to", "way"), [("gguf", "llamacpp-server"), ("gptq", "vllm"), ("gptq", "sglang")])
def test_the_call_over_http_is_one_that_servers_understand(made: Made, to: str, way: str, chat: bool) -> None:
    *_, call = deliver(made(to, chat)).way(way).code.splitlines()
    words = shlex.split(call)
    body = json.loads(words[words.index("-d") + 1])
    assert body["max_tokens"] == 64
    assert words[1].endswith("/v1/chat/completions" if chat else "/v1/completions")
    assert ("messages" in body) == chat and ("prompt" in body) != chat


def test_the_modelfile_is_there_and_names_the_weights(made: Made) -> None:
    folder = made("gguf")
    create, run = map(shlex.split, deliver(folder).way("ollama").code.splitlines())
    modelfile = Path(create[create.index("-f") + 1])
    first = modelfile.read_text("utf-8").splitlines()[0]
    assert (modelfile.parent / first.removeprefix("FROM ")).samefile(folder / "model.gguf")
    assert create[2] == run[2] and re.fullmatch(r"[a-z0-9][a-z0-9._-]*", run[2])


def test_a_gguf_of_another_maker_is_named_where_it_lies(made: Made, tmp_path: Path) -> None:
    file = tmp_path / "some file.gguf"
    shutil.copyfile(made("gguf") / "model.gguf", file)
    found = deliver(file)
    assert found.place == file
    assert str(file) in found.way("edgeq").code.replace('\\"', '"')
    first, *_ = found.way("ollama-file").code.splitlines()
    done = subprocess.run(["sh", "-c", first], cwd=tmp_path, check=True, capture_output=True)
    assert not done.stderr
    assert (tmp_path / "Modelfile").read_text() == f"FROM {file}\n"


def test_the_shell_finds_the_file(made: Made) -> None:
    first = deliver(made("gguf")).way("llamacpp-cli").code.splitlines()[0]
    words = shlex.split(first)
    assert words[0] == "llama-cli" and Path(words[words.index("-m") + 1]).is_file()


def test_without_a_tokenizer_there_is_no_way_and_it_says_so(made: Made, tmp_path: Path) -> None:
    folder = shutil.copytree(made("onnx", False), tmp_path / "bare")
    manifest = json.loads((folder / "edgeq.json").read_text())
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (folder / name).unlink()
        manifest["files"].pop(name)
    (folder / "edgeq.json").write_text(json.dumps(manifest))
    found = deliver(folder)
    assert found.ways == () and ("note", NO_WAY) in rows(found)


def test_a_name_that_no_server_takes_becomes_one(made: Made) -> None:
    facts = facts_of(read_artifact(made("gguf")))
    assert facts.tag == "it-s-a-tiny-model"
    assert replace(facts, name="模型").tag == "model"
