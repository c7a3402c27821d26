"""Which engines a comparison has, and that none of them answers out of a cache of earlier prompts."""

from __future__ import annotations

import argparse
from pathlib import Path

import pytest

engines = pytest.importorskip("engines")
from engines import OPENED, OURS, Row, add_options, prompt_of, rows_of  # noqa: E402
from prefill import _figures  # noqa: E402


def test_no_prompt_begins_as_another() -> None:
    prompts = [prompt_of(n, turn) for n in (32, 128, 512, 4096) for turn in range(4)]
    assert len({tuple(p[:32]) for p in prompts}) == len(prompts)
    assert [len(prompt_of(n, 1)) for n in (1, 2, 40)] == [1, 2, 40]
    assert all(0 <= token < 5100 for prompt in prompts for token in prompt)


@pytest.mark.parametrize(
    ("only", "expected"),
    [
        ("", {*OURS, *OPENED, "onnxruntime-genai", "llama.cpp Q4_0", "llama.cpp Q4_1", "openvino-genai"}),
        ("openvino", {"edgeq openvino", "edgeq openvino, bf16", "openvino-genai"}),
        (
            "standard,llama",
            {
                "edgeq onnx, standard operators",
                "edgeq onnx, standard in place",
                "edgeq llama.cpp Q4_0",
                "onnxruntime-genai",
                "llama.cpp Q4_0",
            },
        ),
    ],
)
def test_rows_come_with_their_peers(tmp_path: Path, only: str, expected: set[str]) -> None:
    for label in OURS:  # all is there, so that nothing is made
        (tmp_path / f"m-{label.replace(', ', '-').replace(' ', '-')}").mkdir()
    for name in ("m-genai", "m-Q4_0.gguf", "m-Q4_1.gguf"):
        (tmp_path / name).touch()
    parser = argparse.ArgumentParser()
    add_options(parser)
    options = parser.parse_args(["--model", str(tmp_path / "m"), "--only", only])
    rows = {row.name: row for row in rows_of(options, tmp_path)}
    assert set(rows) == expected
    assert all(rows[row.peer].path for row in rows.values() if row.peer)
    if "openvino-genai" in rows:  # the same folder
        assert rows["openvino-genai"].path == rows["edgeq openvino"].path


def test_prefill_is_compared_round_by_round_with_the_peer() -> None:
    ours = Row("ours", "edgeq", peer="theirs", prefill={32: [100.0, 300.0, 220.0]})
    theirs = Row("theirs", "genai", prefill={32: [50.0, 100.0, 200.0]})
    found = _figures(ours, theirs, [32])["prefill"]["32"]
    assert found == {"tps": 220.0, "spread": pytest.approx(200 / 2 / 220), "to_peer": 2.0}
    assert _figures(theirs, None, [32, 64])["missing"] == "nothing was measured"
