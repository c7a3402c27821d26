"""Questions answered in a process of their own: what a run takes, which exporters fit."""

from __future__ import annotations

import subprocess
import sys

import pytest

from edgeq.amounts import amount
from edgeq.checkpoint.store import Checkpoint
from edgeq.errors import EdgeqError
from edgeq.jobs.ask import ask
from edgeq.model.read import read_model
from edgeq.model.weights import open_source
from edgeq.quantize.engine import quantize
from edgeq.quantize.predict import predicted
from edgeq.recipe import Recipe, recipe_json
from edgeq.registry import exporter, names


def request(model, out, **changes):
    return {"recipe": recipe_json(Recipe(str(model), **changes)), "out": str(out), "threads": 1}


def test_what_a_run_takes_is_what_the_core_predicts(model, tmp_path):
    answer = ask("needs", request(model, tmp_path / "out"))
    expected = predicted(read_model(str(model)), Recipe(str(model)), 1)
    assert answer["peak"] == expected.ram_bytes
    assert amount(expected.disk_bytes) in dict(answer["rows"])["checkpoint"]
    assert answer["problem"] is None
    assert dict(answer["rows"])["scheme"] == "rtn-int4-g32"


def test_a_method_that_writes_its_text_says_what_that_takes(model, tmp_path):
    answer = ask("needs", request(model, tmp_path / "out", method="gptq"))
    assert "calibration text" in dict(answer["rows"])
    assert answer["peak"] > predicted(read_model(str(model)), Recipe(str(model), method="gptq"), 1).ram_bytes
    assert "error" in answer["summary"]


def test_a_method_that_refuses_says_why(model, tmp_path):
    answer = ask("needs", request(model, tmp_path / "out", method="rtn", activations="static"))
    assert "reads no text" in answer["problem"]["what"]
    assert "smoothquant" in answer["problem"]["hint"]


def test_no_such_model_is_the_model_reader_s_error(tmp_path):
    with pytest.raises(EdgeqError, match="nowhere"):
        ask("needs", request(tmp_path / "nowhere", tmp_path / "out"))


def test_no_room_is_told_with_the_rest(model, tmp_path):
    code = "import shutil, sys\nfrom collections import namedtuple\n"
    code += "shutil.disk_usage = lambda _: namedtuple('U', 'total used free')(10**9, 10**9, 1000)\n"
    code += "import json\nfrom edgeq.jobs.questions import needs\n"
    code += "print(json.dumps(needs(json.loads(sys.argv[1]))['problem']))"
    import json

    asked = json.dumps(request(model, tmp_path / "out"))
    said = subprocess.run([sys.executable, "-P", "-c", code, asked], capture_output=True, text=True, check=True).stdout
    assert "not enough room" in json.loads(said)["what"]


def test_every_exporter_answers_for_a_checkpoint(model, tmp_path):
    made = quantize(open_source(str(model)), Recipe(str(model)), tmp_path / "out", threads=1)
    found = {one["name"]: one for one in ask("exporters", {"checkpoint": str(made.path)})["exporters"]}
    assert sorted(found) == names("edgeq.exporters")
    assert found["onnx"]["refusals"] == []
    assert any("zero points" in reason for reason in found["gguf"]["refusals"])
    # Its embedding has 8 bits, which AWQ has not, and writes as floats.
    assert found["awq"]["refusals"] == []
    for name, one in found.items():
        assert one["about"]
        assert set(one["choices"]) <= set(one["options"]) == set(exporter(name).options)


@pytest.mark.parametrize("name", ["awq", "gptq", "compressed-tensors"])
def test_exporters_that_do_not_refuse_do_export(name, model, tmp_path):
    made = quantize(open_source(str(model)), Recipe(str(model)), tmp_path / "out", threads=1)
    exporter(name).export(Checkpoint.open(made.path), tmp_path / name)
    assert (tmp_path / name / "config.json").exists()


def test_no_such_checkpoint(tmp_path):
    with pytest.raises(EdgeqError, match="no such checkpoint"):
        ask("exporters", {"checkpoint": str(tmp_path / "nowhere")})


def test_the_choices_are_those_that_the_exporters_take():
    from edgeq.exporters.onnx import OnnxExporter
    from edgeq.exporters.onnx.checks import BUFFERS, DIALECTS, DTYPES, LEVELS, PACKS, SCALES, Settings
    from edgeq.exporters.onnx.kv_cache import KV_DTYPES as ONNX_CACHES
    from edgeq.exporters.onnx.ort_format import FORMATS
    from edgeq.exporters.openvino import OpenVinoExporter
    from edgeq.exporters.openvino.options import KV_DTYPES as DEVICES

    known = {
        "dialect": DIALECTS,
        "dtype": DTYPES,
        "format": FORMATS,
        "kv_buffer": BUFFERS,
        "pack": PACKS,
        "accuracy_level": LEVELS,
        "activation_scales": SCALES,
        "kv_dtype": ONNX_CACHES,
    }
    # What it is unless it is asked for: the activations' own; of the only dialect that lets choose.
    usual = {"kv_dtype": DTYPES[Settings().dtype], "kv_buffer": Settings(dialect="standard").buffer}
    for option, values in OnnxExporter.choices.items():
        assert set(values) == set(known[option])
        assert values[0] == usual.get(option, getattr(Settings(), option))
    assert OpenVinoExporter.choices["device"] == tuple(DEVICES)
    assert set(OpenVinoExporter.choices["kv_dtype"]) == {None} | {kv for kvs in DEVICES.values() for kv in kvs}


def test_a_window_asks_without_importing_what_is_heavy():
    code = (
        "import sys\nimport edgeq.jobs, edgeq.jobs.ask, edgeq.jobs.words, edgeq.quantize.so_far, edgeq.quantize.words\n"
    )
    code += "heavy = {'torch', 'transformers', 'onnx', 'onnxruntime', 'openvino', 'gguf'} & set(sys.modules)\n"
    code += "assert not heavy, heavy"
    subprocess.run([sys.executable, "-P", "-c", code], check=True)
