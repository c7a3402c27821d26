"""What is said of an artifact, and the report of it."""

from __future__ import annotations

import json
import os
import re
import shlex
import tomllib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from edgeq.artifact import read_artifact
from edgeq.benchmark import Benchmark, Decode, Prefill, Promise, Samples
from edgeq.checkpoint.store import Checkpoint
from edgeq.cli.main import main
from edgeq.deliver import deliver
from edgeq.deliver.delivery import rows
from edgeq.deliver.markdown import cell, fenced, markdown
from edgeq.deliver.report import default_place, make_report, write_report
from edgeq.errors import EdgeqError
from edgeq.journey import begin, save
from edgeq.measure.proof import prove
from edgeq.plan import Request
from edgeq.recipe import parse_recipe, recipe_json
from edgeq.registry import exporter
from edgeq.store import Store

Made = Callable[..., Path]


def measurement(of: Path, **changes: object) -> Benchmark:
    found = read_artifact(of)
    one = Benchmark(
        date="2026-01-02T03:04:05+00:00",
        device="a | machine",
        target="onnxruntime/cpu",
        model=found.name,
        family="llama",
        scheme=found.scheme,
        artifact=str(of),
        artifact_bytes=found.total_bytes,
        threads=1,
        import_s=0.1,
        load_s=0.2,
        prefill=(Prefill(32, Samples((900.0,)), Samples((0.03,))),),
        decode=Decode(16, 32, Samples((40.0, 44.0))),
        baseline_bytes=1,
        loaded_bytes=2,
        peak_bytes=300_000_000,
        load_before=0.0,
        load_during=0.0,
        promise=Promise(decode_tps=50.0, memory_bytes=250_000_000, basis="learned"),
        warnings=("the machine was busy",),
    )
    return replace(one, **changes)  # type: ignore[arg-type]


def test_the_measurement_is_of_this_very_artifact(made: Made) -> None:
    folder = made("onnx")
    assert dict(rows(deliver(folder)))["measured"].startswith("not yet")
    for other in ({"artifact": "/elsewhere"}, {"artifact_bytes": 5}, {"scheme": "another"}):
        Store().add(measurement(folder, **other))
    assert deliver(folder).benchmark is None
    Store().add(measurement(folder, date="2025-01-01"))
    Store().add(measurement(folder))
    said = dict(rows(deliver(folder)))["measured"]
    assert "42.0 tok/s (promised 50.0), 300 MB (promised 250 MB) of memory at the peak; 2026-01-02" in said


def test_the_report_tells_all_and_can_be_done_again(made: Made, tmp_path: Path) -> None:
    from edgeq.checkpoint.open import open_weights

    folder, checkpoint = made("onnx"), made("onnx").with_name("q")
    prove(exporter("onnx"), read_artifact(folder), open_weights(checkpoint))
    Store().add(measurement(folder))
    way = begin(tmp_path).with_model(str(folder.with_name("model")))
    save(way.with_choice(Request(context=96), "rtn-int4-g32-sym", "onnxruntime/cpu").with_artifact(str(folder)))
    report = make_report(deliver(folder))
    assert report.absent == []
    assert report.choice is not None and ("asked for", "96 tokens of context, balanced") in report.choice.chosen
    assert parse_recipe(report.recipe or "").bits == 4
    assert report.worst and report.worst[0].error == max(r.error for r in report.worst)
    quantize, export, verify, bench = map(shlex.split, report.commands)
    assert quantize[:3] == ["edgeq", "quantize", str(folder.with_name("model"))] and "--symmetric" in quantize
    assert export == ["edgeq", "export", str(checkpoint), "--to", "onnx", "-o", str(folder)]
    assert verify[-1] == bench[-1] == str(folder)
    text = "\n".join(markdown(report))
    for heading in ("Device and model", "The choice", "Quantization", "Recipe", "Proof", "Measured", "Do it again"):
        assert f"## {heading}\n" in text
    assert "a \\| machine" in text and "Verdict: **pass**" in text and "- the machine was busy" in text
    assert "| decode, tok/s | 42.0 | 50.0 | 0.84 |" in text
    toml = re.search(r"```toml\n(.*?)```", text, re.DOTALL)
    assert toml is not None and tomllib.loads(toml[1])["bits"] == 4


def test_the_commands_make_the_same_artifact_again(made: Made, tmp_path: Path) -> None:
    """With options that are not the exporter's own."""
    checkpoint, out = made("onnx").with_name("q"), tmp_path / "an artifact"
    run("export", checkpoint, "--kv-dtype", "int8", "--context", 64, "-o", out, "--no-verify")
    before = read_artifact(out)
    *_, command = [c for c in make_report(deliver(out)).commands if " export " in c]
    assert "--context 64 --kv-dtype int8" in command
    run(*shlex.split(command)[1:], "--force", "--no-verify")
    assert read_artifact(out).files == before.files
    quantize = shlex.split(make_report(deliver(out)).commands[0])[1:]
    quantize[quantize.index("-o") + 1] = str(tmp_path / "again")
    run(*quantize, "--threads", 1)
    again, first = Checkpoint.open(tmp_path / "again"), Checkpoint.open(checkpoint)
    assert again.manifest.recipe == first.manifest.recipe == recipe_json(parse_recipe(first_recipe(out)))
    assert again.manifest.tensors == first.manifest.tensors


def first_recipe(artifact: Path) -> str:
    return make_report(deliver(artifact)).recipe or ""


def run(*arguments: object) -> None:
    with pytest.raises(SystemExit) as left:
        main([*map(str, arguments)])
    assert not left.value.code


def test_a_checkpoint_that_is_gone_leaves_a_report_that_says_so(made: Made, tmp_path: Path) -> None:
    manifest = json.loads((made("gguf") / "edgeq.json").read_text())
    folder = tmp_path / "alone"
    folder.mkdir()
    for name in manifest["files"]:
        os.link(made("gguf") / name, folder / name)
    (folder / "edgeq.json").write_text(json.dumps(manifest | {"checkpoint": str(tmp_path / "gone")}))
    report = make_report(deliver(folder))
    assert report.recipe is None and report.worst == []
    text = "\n".join(markdown(report))
    assert "How it was quantized: no such checkpoint" in text and "## Recipe" not in text
    assert "The proof: the artifact was not compared" in text


def test_a_file_that_changed_is_not_reported_on(made: Made, tmp_path: Path) -> None:
    folder = made("gptq")
    found = deliver(folder)
    weights = folder / "model.safetensors"
    before = weights.read_bytes()
    weights.write_bytes(before[:-1] + bytes([before[-1] ^ 1]))
    try:
        with pytest.raises(EdgeqError, match="damaged"):
            make_report(found)
        weights.write_bytes(before[:-1])
        with pytest.raises(EdgeqError, match="missing or truncated"):
            deliver(folder)
    finally:
        weights.write_bytes(before)


def test_it_lies_beside_the_artifact_which_stays_whole(made: Made) -> None:
    found = deliver(made("onnx", False))
    place = default_place(found)
    assert place.parent == found.place.parent and place.name == f"{found.place.name}-report.md"
    write_report(make_report(found), place)
    assert place.read_text("utf-8").startswith("# ")
    make_report(deliver(found.place))


def test_a_place_that_can_t_be_written_is_an_error_with_a_way_out(made: Made, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(EdgeqError, match="Choose another place for the report"):
        write_report(make_report(deliver(made("onnx"))), tmp_path / "file" / "report.md")


def test_cells_and_fences_hold_what_they_are_given() -> None:
    assert cell("a|b\n`c` <i> [x]") == "a\\|b \\`c\\` \\<i> \\[x\\]"
    assert list(fenced("x\n````\ny\n", "bash")) == ["`````bash", "x", "````", "y", "`````"]
