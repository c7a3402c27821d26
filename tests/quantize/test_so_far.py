"""What is quantized so far: the journal of a run that stopped half-way says of its layers what the checkpoint will."""

from __future__ import annotations

from edgeq.model.weights import open_source
from edgeq.quantize.engine import quantize
from edgeq.quantize.so_far import LayerError, MatrixDone, layer_errors, matrices_done, place
from edgeq.recipe import Recipe


class Stop(Exception):
    pass


def interrupted(model, recipe, out, at, tokens=None):
    def progress(done, total, what):
        if what.startswith(at):
            raise Stop

    try:
        quantize(open_source(str(model)), recipe, out, progress=progress, tokens=tokens, threads=1)
    except Stop:
        return
    raise AssertionError("it was not interrupted")


def test_nothing_yet(tmp_path):
    assert matrices_done(tmp_path / "out") == []


def test_a_run_half_way_has_the_first_of_the_finished_one_s_matrices(tiny, tmp_path):
    model, out = tiny(), tmp_path / "out"
    recipe = Recipe(str(model))
    interrupted(model, recipe, out, "layers.1")
    half = matrices_done(out)
    quantize(open_source(str(model)), recipe, out, threads=1)
    whole = matrices_done(out)
    assert {m.layer for m in half} == {None, 0}
    assert [(m.name, m.error) for m in half] == [(m.name, m.error) for m in whole if m.layer in (None, 0)]
    assert len(whole) > len(half)


def test_errors_are_those_of_outputs_where_text_gave_inputs(tiny, tmp_path, ids):
    model, out = tiny(), tmp_path / "out"
    recipe = Recipe(str(model), method="gptq")
    interrupted(model, recipe, out, "layers.1", ids)
    half = {m.name: m for m in matrices_done(out)}
    made = quantize(open_source(str(model)), recipe, out, tokens=ids, threads=1)
    stored = made.manifest.tensors
    for name in (n for n in half if n.startswith("layers.")):
        assert half[name].error == stored[name].report.error_after
    whole = {m.name: m for m in matrices_done(out)}
    assert all(half[n].error == whole[n].error for n in half)


def test_another_recipe_s_layers_are_not_this_one_s(tiny, tmp_path):
    model, out = tiny(), tmp_path / "out"
    interrupted(model, Recipe(str(model)), out, "layers.1")
    journal = out.with_name("out.partial") / "journal.jsonl"
    old = journal.read_bytes()
    interrupted(model, Recipe(str(model), bits=8), out, "layers.1")
    journal.write_bytes(old + journal.read_bytes().removeprefix(old))
    names = [m.name for m in matrices_done(out)]
    assert len(names) == len(set(names))
    assert max(m.error for m in matrices_done(out) if m.layer is not None) < 1e-3, "8 bits, not the 4 of before"


def test_a_damaged_checkpoint_has_none(tiny, tmp_path):
    out = tmp_path / "out"
    quantize(open_source(str(tiny())), Recipe("x"), out, threads=1)
    (out / "manifest.json").write_text("{")
    assert matrices_done(out) == []


def test_layers_together():
    done = [
        MatrixDone("embed", None, "embed", 9.0),
        MatrixDone("layers.0.q", 0, "q", 1.0),
        MatrixDone("layers.0.down", 0, "down", 3.0),
        MatrixDone("layers.2.q", 2, "q", 0.5),
    ]
    assert layer_errors(done) == [LayerError(0, 200.0, 300.0, "down"), LayerError(2, 50.0, 50.0, "q")]


def test_places():
    assert place("layers.3.down") == (3, "down")
    assert place("layers.3.experts.7.up") == (3, "experts.7.up")
    assert place("checksums of the source") is None
