"""A spec's configuration: read back as the same spec, and the same logits from transformers."""

from __future__ import annotations

import json
import runpy
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from edgeq.errors import EdgeqError
from edgeq.model.config import read_config
from edgeq.model.hf_config import config_of, different
from edgeq.model.read import read_model

EVERY = tuple(runpy.run_path(str(Path(__file__).with_name("conftest.py")))["ARCHITECTURES"])
IDS = np.random.default_rng(7).integers(3, 160, 28).tolist()


@pytest.mark.parametrize("name", EVERY)
def test_transformers_computes_the_same_from_it(tiny, tmp_path, name):
    import torch
    from transformers import AutoModelForCausalLM

    model = tiny(name)
    made = config_of(model.weights.spec)
    assert different(model.weights.spec, read_config(made, name=name)) is None
    shutil.copyfile(model.folder / "model.safetensors", tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_text(json.dumps(made))
    loaded = AutoModelForCausalLM.from_pretrained(tmp_path, dtype=torch.float32, attn_implementation="eager").eval()
    for length in (12, len(IDS)):  # within and beyond the trained length of the long-context models
        with torch.inference_mode():
            logits = loaded(torch.tensor([IDS[:length]]), use_cache=False).logits[0].numpy()
        atol = 2e-6 if name == "granitemoe" else 0  # experts are summed in another order
        np.testing.assert_allclose(logits, model.reference(IDS[:length]), atol=atol, rtol=0)


def test_a_model_that_no_configuration_can_say_is_refused():
    spec = replace(read_model("llama-3.1-8b"), embed_scale=2.0)
    with pytest.raises(EdgeqError, match="can't say this model's embed_scale"):
        config_of(spec)
    with pytest.raises(EdgeqError, match=r"no config.json of deepseek_v2"):
        config_of(read_model("deepseek-v2-lite"))
