"""A model of an unknown architecture, which needs Python code of its own: planned with a clear word, never computed."""

from __future__ import annotations

import json

import pytest

from edgeq.cli.main import main
from edgeq.device import load_device
from edgeq.errors import EdgeqError
from edgeq.formats.sources import open_quantized
from edgeq.model.read import read_model
from edgeq.model.weights import open_source
from edgeq.plan import Request, make_plan
from edgeq.plan.glance import glance, sentence
from edgeq.plan.obstacle import obstacle

AUTO_MAP = {
    "AutoConfig": "configuration_brandnew.BrandnewConfig",
    "AutoModelForCausalLM": "org/code--modeling_brandnew.BrandnewForCausalLM",
}


@pytest.fixture
def own(model):
    """The tiny model under a name nobody knows, with code that says so where it is run or imported."""
    config = model / "config.json"
    config.write_text(json.dumps({**json.loads(config.read_text()), "model_type": "brandnew", "auto_map": AUTO_MAP}))
    (model / "modeling_brandnew.py").write_text("raise SystemExit('the code was run')\n")
    (model / "configuration_brandnew.py").write_text("raise SystemExit('the code was run')\n")
    return model


@pytest.fixture
def laptop():
    return load_device("ddr4-laptop")


def left(*arguments: object) -> int:
    with pytest.raises(SystemExit) as exit_:
        main([str(a) for a in arguments])
    return int(exit_.value.code or 0)


def test_it_is_estimated_and_says_what_it_lacks(own):
    said = read_model(str(own)).estimated
    assert "brandnew is computed by Python code of its own (modeling_brandnew.py), which edgeq never runs" in said[0]
    assert said[1] == "edgeq can plan it, but not quantize or run it"


@pytest.mark.parametrize("auto_map", ["text", 3, [], {}, {"AutoModel": 7}, {"AutoModel": "../[red]x.Y"}, None])
def test_an_odd_auto_map_is_no_code(own, auto_map):
    config = own / "config.json"
    config.write_text(json.dumps({**json.loads(config.read_text()), "auto_map": auto_map}))
    assert "brandnew is not an architecture edgeq knows" in read_model(str(own)).estimated[0]


def test_code_beside_a_known_architecture_is_not_needed(own):
    config = own / "config.json"
    config.write_text(json.dumps({**json.loads(config.read_text()), "model_type": "llama"}))
    assert read_model(str(own)).estimated == () and open_source(own).names()


@pytest.mark.parametrize("options", [("-o", "OUT"), ("-o", "OUT", "--force"), ("--dry-run",)])
def test_quantize_refuses_it_before_anything_else(own, tmp_path, capsys, monkeypatch, options):
    monkeypatch.setattr("edgeq.model.weights.FolderWeights", None)  # no weight is looked at
    out = tmp_path / "out"
    assert left("quantize", own, *(out if o == "OUT" else o for o in options)) == 2
    printed = " ".join(capsys.readouterr())
    assert "can plan this model but not quantize or run it" in printed and "modeling_brandnew.py" in printed
    assert str(own) in printed and "Take a model of an architecture that edgeq knows" in printed
    assert not out.exists()


def test_convert_refuses_it_too(own):
    config = own / "config.json"
    quantized = {"quant_method": "gptq", "bits": 4, "group_size": 32}
    config.write_text(json.dumps({**json.loads(config.read_text()), "quantization_config": quantized}))
    with pytest.raises(EdgeqError, match="not quantize or run it"):
        open_quantized(own)


def test_nothing_is_fetched_of_it(own, monkeypatch):
    spec = read_model(str(own))
    monkeypatch.setattr("edgeq.model.weights.read_model", lambda ref: spec)
    monkeypatch.setattr("edgeq.model.download.snapshot", lambda ref: pytest.fail("fetched"))
    with pytest.raises(EdgeqError, match="not quantize or run it"):
        open_source("org/brandnew")


def test_inspect_and_plan_say_so(own, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    assert left("inspect", own) == 0
    printed = capsys.readouterr().out
    assert "modeling_brandnew.py" in printed and "edgeq can plan it, but not quantize or run it" in printed
    assert left("plan", "-m", own, "-d", "ddr4-laptop") == 0
    printed = capsys.readouterr().out
    assert "modeling_brandnew.py" in printed and "Edgeq can plan it, but not quantize or run it" in printed
    assert "edgeq quantize" not in printed


def test_a_plan_gives_no_command_and_no_way_to_choose(own, laptop):
    plan = make_plan(laptop, read_model(str(own)), Request(context=64))
    assert plan.candidates and plan.next_commands == ()
    found = obstacle(plan, plan.candidates[0])
    assert found is not None and found.reason == "edgeq does not know how brandnew computes"


def test_at_a_glance_it_is_only_planned(own, laptop):
    seen = glance(laptop, read_model(str(own)), Request(context=64))
    assert sentence(seen).startswith("Only to plan, edgeq can't make it. At 4 bits")
