"""An export is proved by what its file holds and by what its runtime computes; what fails is not handed over."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from edgeq.artifact import MANIFEST, Artifact, read_artifact
from edgeq.errors import EdgeqError
from edgeq.jsonable import to_json
from edgeq.measure import proof as proof_module
from edgeq.measure.proof import Proof, prove, refuse_unproved, runs
from edgeq.measure.proof_words import artifact_rows, file_rows, proof_rows
from edgeq.registry import exporter


class ReadsBack:
    """An exporter whose file is compared with the checkpoint, number by number."""

    name, options, reads_back = "reads-back", (), True

    def __init__(self, wrong: list[str]) -> None:
        self.wrong, self.asked = wrong, 0

    def read_back(self, artifact: Artifact, weights: Any, *, progress: Any = None) -> list[str]:
        self.asked += 1
        return self.wrong


class Absent:
    def missing(self) -> str | None:
        return "onnxruntime"


def test_a_good_export_is_verified_and_its_manifest_says_so(artifact: Artifact, checkpoint: Any) -> None:
    assert runs(artifact)
    found = prove(exporter("onnx"), artifact, checkpoint)
    assert found.passed and found.tensors == 0 and found.unchecked == ""
    assert found.verification is not None and found.verification.verdict == "pass"
    assert read_artifact(artifact.path).verify["verdict"] == "pass"
    assert found.artifact.verify["verdict"] == "pass"
    refuse_unproved(found)


def test_what_computes_something_else_is_refused(artifact: Artifact, other: Any) -> None:
    found = prove(exporter("onnx"), artifact, other)  # of other weights than it was exported from
    assert not found.passed
    with pytest.raises(EdgeqError, match="does not compute what the checkpoint says") as error:
        refuse_unproved(found)
    assert "Do not use it" in str(error.value.hint)
    assert read_artifact(artifact.path).verify["verdict"] == "fail"


def test_numbers_that_differ_end_the_proof_before_the_runtime_is_asked(
    artifact: Artifact, checkpoint: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(proof_module, "runtime", lambda _: pytest.fail("asked"))
    found = prove(ReadsBack(["layers.0.q: 3 numbers differ"]), artifact, checkpoint)  # type: ignore[arg-type]
    assert not found.passed and found.verification is None
    assert found.wrong == ("layers.0.q: 3 numbers differ",)
    with pytest.raises(EdgeqError, match=r"layers\.0\.q: 3 numbers differ"):
        refuse_unproved(found)
    kept = json.loads((artifact.path / MANIFEST).read_text())["verify"]
    assert (kept["verdict"], kept["reasons"]) == ("fail", ["layers.0.q: 3 numbers differ"])


def test_numbers_are_read_back_where_asked_or_where_the_exporter_wants_it(
    artifact: Artifact, checkpoint: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(proof_module, "runtime", lambda _: Absent())
    wants = ReadsBack([])
    found = prove(wants, artifact, checkpoint)  # type: ignore[arg-type]
    assert (wants.asked, found.tensors) == (1, len(checkpoint.names()))
    assert prove(wants, artifact, checkpoint, read_back=False).tensors == 0  # type: ignore[arg-type]
    assert wants.asked == 1
    wants.reads_back = False  # type: ignore[misc]
    assert prove(wants, artifact, checkpoint).tensors == 0  # type: ignore[arg-type]
    assert prove(wants, artifact, checkpoint, read_back=True).tensors > 0  # type: ignore[arg-type]


def test_without_its_runtime_it_is_said_that_the_logits_were_not_compared(
    artifact: Artifact, checkpoint: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(proof_module, "runtime", lambda _: Absent())
    found = prove(exporter("onnx"), artifact, checkpoint)
    assert found.passed and found.verification is None
    assert found.unchecked == "its runtime needs onnxruntime"
    monkeypatch.setattr(proof_module, "names", lambda _: [])
    assert not runs(artifact)
    assert prove(exporter("onnx"), artifact, checkpoint).unchecked == "edgeq has no runtime onnxruntime"


def test_a_failed_proof_without_a_reason_is_refused_all_the_same(artifact: Artifact) -> None:
    with pytest.raises(EdgeqError, match="first") as error:
        refuse_unproved(Proof(artifact, 3, ("first", "second")))
    assert "second" not in error.value.what


def test_the_proof_in_words(artifact: Artifact, checkpoint: Any) -> None:
    found = prove(exporter("onnx"), artifact, checkpoint)
    result = {
        "artifact": str(artifact.path),
        "runtime": "onnxruntime",
        "bytes": 107_900_000,
        "tensors": 17,
        "verification": to_json(found.verification),
        "unchecked": "",
        "notes": ["Needs onnxruntime 1.20"],
    }
    rows = dict(proof_rows(result))
    assert rows["size"] == "108 MB" and rows["note"] == "Needs onnxruntime 1.20"
    assert rows["read back"].startswith("17 tensors") and "KL divergence" in rows["verified"]
    files = file_rows(replace(artifact, files={f"part-{i}": {"bytes": 1000 * i} for i in range(1, 15)}))
    assert files[0] == ("part-14", "14 KB") and files[-2:] == [("2 more", "3 KB"), ("all together", "0.1 MB")]
    assert [name for name, _ in file_rows(artifact)].count("model.onnx") == 1
    bare = dict(proof_rows(result | {"tensors": 0, "verification": None, "unchecked": "no runtime"}))
    assert bare["logits"] == "not compared: no runtime" and "verified" not in bare
    lying = dict(artifact_rows(read_artifact(Path(artifact.path))))
    assert lying["verified"] == rows["verified"]
