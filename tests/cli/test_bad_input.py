"""Bad input over the whole command line: one line that names the culprit, exit code 2, nothing left behind."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file

from edgeq.cli.main import main
from edgeq.model.names import hf_names
from edgeq.model.read import read_model
from edgeq.model.tensors import tensors

Damage = Callable[[Path], object]
CONFIG = {
    "model_type": "llama",
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "num_hidden_layers": 1,
    "vocab_size": 80,
    "max_position_embeddings": 128,
    "hidden_act": "silu",
    "tie_word_embeddings": True,
}
MANIFEST = {
    "edgeq_artifact": 1,
    "runtime": "onnxruntime",
    "name": "tiny",
    "scheme": "rtn-int4-g32",
    "model": {"vocab_size": 80, "layers": 1, "kv_heads": 2, "head_dim": 16, "max_positions": 128, "eos_ids": [2]},
    "files": {"model.onnx": {"bytes": 7}},
}


@pytest.fixture
def model(tmp_path: Path) -> Path:
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(CONFIG))
    (folder / "tokenizer.json").write_text("{}")
    spec = read_model(str(folder))
    slices = hf_names(spec)
    save_file({slices[t.name].name: np.ones(t.shape, np.float32) for t in tensors(spec)}, folder / "model.safetensors")
    return folder


@pytest.fixture
def artifact(tmp_path: Path) -> Path:
    folder = tmp_path / "artifact"
    folder.mkdir()
    (folder / "edgeq.json").write_text(json.dumps(MANIFEST))
    (folder / "model.onnx").write_text("garbage")
    return folder


def put(name: str, content: bytes | str) -> Damage:
    return lambda folder: (folder / name).write_bytes(content if isinstance(content, bytes) else content.encode())


def change(name: str, /, **values: object) -> Damage:
    def damage(folder: Path) -> None:
        table = json.loads((folder / name).read_text())
        for key, value in values.items():
            *path, last = key.split("__")
            at: Any = table
            for step in path:
                at = at[step]
            at[last] = value
        (folder / name).write_text(json.dumps(table))

    return damage


def loop(name: str) -> Damage:
    def damage(folder: Path) -> None:
        (folder / name).unlink()
        (folder / name).symlink_to(name)

    return damage


def as_folder(name: str) -> Damage:
    def damage(folder: Path) -> None:
        (folder / name).unlink()
        (folder / name).mkdir()

    return damage


def pickled(folder: Path) -> None:
    (folder / "model.safetensors").unlink()
    (folder / "pytorch_model.bin").write_bytes(b"\x80\x04cos\nsystem\n.")


def refused(arguments: list[object], named: str, capsys: pytest.CaptureFixture[str], folder: Path) -> None:
    before = sorted(folder.rglob("*"))
    with pytest.raises(SystemExit) as caught:
        main([str(a) for a in arguments])
    said = capsys.readouterr().err
    assert caught.value.code == 2, said
    assert said.startswith("error: ") and len(said.strip().splitlines()) == 1
    assert named in said and "unexpected" not in said
    assert sorted(folder.rglob("*")) == before


MODELS: dict[str, tuple[Damage, str]] = {
    "config gone": (lambda m: (m / "config.json").unlink(), "config.json"),
    "config empty": (put("config.json", ""), "config.json"),
    "config deep": (put("config.json", "[" * 200_000), "nested too deeply"),
    "config loop": (loop("config.json"), "config.json"),
    "config a folder": (as_folder("config.json"), "config.json"),
    "config of another": (change("config.json", hidden_size=128), "64"),
    "config absurd": (change("config.json", hidden_size=10**30), "hidden_size"),
    "architecture unknown": (change("config.json", model_type="zorglub"), "zorglub"),
    "weights pickled": (pickled, "pickle"),
    "weights empty": (put("model.safetensors", ""), "truncated"),
    "weights a folder": (as_folder("model.safetensors"), "model.safetensors"),
    "header deep": (put("model.safetensors", (9000).to_bytes(8, "little") + b"[" * 9000), "nested"),
    "header too long": (put("model.safetensors", b"\xff" * 7 + b"\x7f{}"), "header claims"),
    "tokenizer damaged": (put("tokenizer.json", "{{{"), "tokenizer.json"),
    "tokenizer a list": (put("tokenizer.json", "[]"), "tokenizer.json"),
}


@pytest.mark.parametrize("case", MODELS)
@pytest.mark.parametrize("command", ["quantize", "export"])
def test_a_bad_model(case: str, command: str, model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    damage, named = MODELS[case]
    if command == "export":
        pytest.importorskip("onnx")
    damage(model)
    refused([command, model, "-o", tmp_path / "out"], named, capsys, tmp_path)


ARTIFACTS: dict[str, tuple[Damage, str]] = {
    "no manifest": (lambda a: (a / "edgeq.json").unlink(), "edgeq.json"),
    "manifest empty": (put("edgeq.json", ""), "damaged"),
    "manifest a list": (put("edgeq.json", "[]"), "damaged"),
    "manifest deep": (put("edgeq.json", "[" * 200_000), "damaged"),
    "manifest newer": (change("edgeq.json", edgeq_artifact=99), "99"),
    "facts a list": (change("edgeq.json", model=[]), "model"),
    "vocabulary a text": (change("edgeq.json", model__vocab_size="x"), "vocab_size"),
    "layers negative": (change("edgeq.json", model__layers=-1), "layers"),
    "context a text": (change("edgeq.json", model__max_positions="x"), "max_positions"),
    "ends a text": (change("edgeq.json", model__eos_ids="abc"), "eos_ids"),
    "name a number": (change("edgeq.json", name=5), "name"),
    "scheme a list": (change("edgeq.json", scheme=[]), "scheme"),
    "options a list": (change("edgeq.json", options=[]), "options"),
    "plan a list": (change("edgeq.json", plan=[]), "plan"),
    "checkpoint a number": (change("edgeq.json", checkpoint=5), "checkpoint"),
    "unknown field": (change("edgeq.json", zorg=1), "zorg"),
    "file truncated": (put("model.onnx", "g"), "model.onnx"),
}


@pytest.mark.parametrize("case", ARTIFACTS)
@pytest.mark.parametrize("command", [["run"], ["bench", "--no-store"], ["verify"]], ids=lambda c: c[0])
def test_a_bad_artifact(
    case: str, command: list[str], artifact: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    damage, named = ARTIFACTS[case]
    damage(artifact)
    text = ["hello"] if command[0] == "run" else []
    refused([command[0], artifact, *text, *command[1:]], named, capsys, tmp_path)


def test_verify_sees_a_file_that_was_changed(
    artifact: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    change("edgeq.json", files={"model.onnx": {"bytes": 7, "sha256": "0" * 64}})(artifact)
    refused(["verify", artifact], "checksum", capsys, tmp_path)


CHECKPOINTS: dict[str, tuple[Damage, str]] = {
    "manifest empty": (put("manifest.json", ""), "manifest"),
    "no tensors": (change("manifest.json", tensors={}), "lacks tensor"),
    "no layers": (change("manifest.json", spec__layers=[]), "foreign tensor"),
    "another width": (change("manifest.json", spec__hidden_size=10**12), "shape"),
    "tokenizer changed": (put("tokenizer/tokenizer.json", "[]"), "tokenizer.json"),
    "shard changed": (put("layer-0000.safetensors", "x"), "layer-0000.safetensors"),
}


@pytest.mark.parametrize("case", CHECKPOINTS)
def test_a_bad_checkpoint(case: str, model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("onnx")
    with pytest.raises(SystemExit):
        main(["quantize", str(model), "-o", str(tmp_path / "q")])
    capsys.readouterr()
    damage, named = CHECKPOINTS[case]
    damage(tmp_path / "q")
    refused(["export", tmp_path / "q", "-o", tmp_path / "out"], named, capsys, tmp_path)


@pytest.mark.parametrize("limit", ["nan", "-1", "inf"])
def test_a_limit_that_is_none(limit: str, artifact: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    refused(["verify", artifact, "--kld-limit", limit], "--kld-limit", capsys, tmp_path)


ENVIRONMENTS = {
    "ascii": {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0", "PYTHONIOENCODING": "ascii"},
    "narrow": {"COLUMNS": "20"},
}


@pytest.mark.parametrize("name", ENVIRONMENTS)
@pytest.mark.parametrize("arguments", [["inspect", "7B"], ["inspect", "7B", "--json"], ["profile", "--list"]])
def test_any_terminal_shows_it(name: str, arguments: list[str]) -> None:
    done = _edgeq(arguments, **ENVIRONMENTS[name])
    assert (done.returncode, done.stderr) == (0, b"")
    if "--json" in arguments:
        json.loads(done.stdout)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no full device here")
def test_a_full_disk_behind_the_output() -> None:
    with Path("/dev/full").open("wb") as full:
        done = _edgeq(["inspect", "7B"], stdout=full)
    assert done.returncode == 2
    assert done.stderr.startswith(b"error: ") and done.stderr.count(b"\n") == 1


@pytest.mark.skipif(sys.platform == "win32", reason="POSIX signals")
def test_a_terminated_process_tidies_up(tmp_path: Path) -> None:
    code = (
        "import sys, typer, edgeq.cli.main as m, os, signal\n"
        "from pathlib import Path\nfrom edgeq.files import new_folder\n"
        "def app(*a, **k):\n"
        "    with new_folder(Path(sys.argv[1])):\n        os.kill(os.getpid(), signal.SIGTERM)\n"
        "m.app = app\nm.main()\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "out")], capture_output=True, check=False, timeout=60
    )
    assert (done.returncode, done.stderr) == (130, b"error: interrupted\n")
    assert not list(tmp_path.iterdir())


def _edgeq(
    arguments: list[str], stdout: Any = subprocess.PIPE, **environment: str
) -> subprocess.CompletedProcess[bytes]:
    command = [sys.executable, "-m", "edgeq", *arguments]
    return subprocess.run(
        command, stdout=stdout, stderr=subprocess.PIPE, check=False, timeout=60, env={**os.environ, **environment}
    )
