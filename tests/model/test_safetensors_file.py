"""The parser takes every honest safetensors file and answers every other with one EdgeqError."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.numpy import save_file

from edgeq.errors import EdgeqError
from edgeq.model.safetensors_file import SafetensorsFile, open_shards

RNG = np.random.default_rng(0)


def raw_file(path: Path, header: bytes | dict[str, Any], data: bytes = b"", length: int | None = None) -> Path:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.write_bytes((len(text) if length is None else length).to_bytes(8, "little") + text + data)
    return path


def entry(shape: list[int], start: int, end: int, dtype: str = "F32") -> dict[str, Any]:
    return {"dtype": dtype, "shape": shape, "data_offsets": [start, end]}


@pytest.mark.parametrize("dtype", ["f2", "f4", "f8", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8", "?"])
def test_reads_what_the_reference_library_writes(tmp_path: Path, dtype: str) -> None:
    values = RNG.integers(0, 2 if dtype == "?" else 100, (7, 5)).astype(dtype)
    save_file({"a": values, "b": values[:2]}, tmp_path / "x.safetensors", {"who": "me"})
    file = SafetensorsFile.open(tmp_path / "x.safetensors")
    assert file.metadata == {"who": "me"}
    assert np.array_equal(file.read("a"), values.astype(np.float32))
    assert np.array_equal(file.read("a", slice(2, 5)), values[2:5].astype(np.float32))
    assert np.array_equal(file.raw("b"), np.frombuffer(values[:2].tobytes(), np.uint8))


@pytest.mark.parametrize(
    ("name", "kind"),
    [("BF16", ml_dtypes.bfloat16), ("F8_E4M3", ml_dtypes.float8_e4m3fn), ("F8_E5M2", ml_dtypes.float8_e5m2)],
)
def test_reads_floats_that_numpy_lacks(tmp_path: Path, name: str, kind: Any) -> None:
    values = RNG.standard_normal((4, 6)).astype(kind)
    data = values.tobytes()
    file = SafetensorsFile.open(raw_file(tmp_path / "x.safetensors", {"a": entry([4, 6], 0, len(data), name)}, data))
    assert np.array_equal(file.read("a"), values.astype(np.float32))


def test_scalars_and_empty_tensors(tmp_path: Path) -> None:
    header = {"s": entry([], 0, 4), "e": entry([0, 5], 4, 4)}
    file = SafetensorsFile.open(raw_file(tmp_path / "x.safetensors", header, np.float32(3).tobytes()))
    assert file.read("s") == 3 and file.read("s").shape == ()
    assert file.read("e").shape == (0, 5)


HOSTILE: dict[str, tuple[bytes | dict[str, Any], int, str]] = {
    "offsets beyond the file": ({"a": entry([4], 0, 16)}, 8, "lies at bytes"),
    "negative offsets": ({"a": entry([4], -16, 0)}, 16, "bad offsets"),
    "start after end": ({"a": entry([4], 16, 0)}, 16, "lies at bytes"),
    "overlap": ({"a": entry([4], 0, 16), "b": entry([2], 8, 16)}, 16, "overlaps"),
    "hole": ({"a": entry([1], 0, 4), "b": entry([1], 8, 12)}, 12, "hole"),
    "bytes left over": ({"a": entry([1], 0, 4)}, 12, "follow the last"),
    "shape and bytes differ": ({"a": entry([3], 0, 16)}, 16, "need other"),
    "shape that overflows 64 bits": ({"a": entry([1 << 32, 1 << 32, 4], 0, 0)}, 0, "bad shape"),
    "empty shape that overflows": ({"a": entry([0, 1 << 62, 1 << 62], 0, 0)}, 0, "bad shape"),
    "giant integer": ({"a": entry([10**400], 0, 16)}, 16, "bad shape"),
    "fractional shape": ({"a": {"dtype": "F32", "shape": [1.5], "data_offsets": [0, 4]}}, 4, "bad shape"),
    "boolean shape": ({"a": {"dtype": "F32", "shape": [True], "data_offsets": [0, 4]}}, 4, "bad shape"),
    "unknown dtype": ({"a": entry([1], 0, 4, "F33")}, 4, "unknown dtype"),
    "missing field": ({"a": {"dtype": "F32"}}, 4, "lacks"),
    "metadata not strings": ({"__metadata__": {"a": 1}}, 0, "__metadata__"),
    "not an object": (b"[]", 0, "not a JSON object"),
    "not JSON": (b"{", 0, "bad JSON"),
    "not UTF-8": (b'{"\xff": 1}', 0, "UTF-8"),
    "deep nesting": (b"[" * 200_000, 0, "nested too deeply"),
    "duplicate names": (b'{"a": 1, "a": 2}', 0, "appears twice"),
    "lone surrogate": (b'{"\\ud800": {}}', 0, "lacks"),
}


@pytest.mark.parametrize("case", HOSTILE)
def test_refuses(tmp_path: Path, case: str) -> None:
    header, size, says = HOSTILE[case]
    path = raw_file(tmp_path / "x.safetensors", header, bytes(size))
    with pytest.raises(EdgeqError) as caught:
        SafetensorsFile.open(path)
    assert says in caught.value.line and str(path) in caught.value.line
    caught.value.line.encode()  # printable, whatever the name was


def test_refuses_header_lengths_beyond_the_file_or_the_limit(tmp_path: Path) -> None:
    for length in (3, 200, 100_000_001, (1 << 64) - 1):
        with pytest.raises(EdgeqError):
            SafetensorsFile.open(raw_file(tmp_path / "x.safetensors", b"{}", length=length))
    with pytest.raises(EdgeqError, match="truncated"):
        SafetensorsFile.open(Path(tmp_path / "y").write_bytes(b"1234") and tmp_path / "y")
    with pytest.raises(EdgeqError, match="cannot open"):
        SafetensorsFile.open(tmp_path / "none.safetensors")
    with pytest.raises(EdgeqError):
        SafetensorsFile.open(tmp_path)


def test_a_file_shortened_after_opening_is_an_error(tmp_path: Path) -> None:
    path = tmp_path / "x.safetensors"
    save_file({"a": np.ones((1000, 100), np.float32)}, path)
    file = SafetensorsFile.open(path)
    with path.open("r+b") as stream:
        stream.truncate(5000)
    with pytest.raises(EdgeqError, match="ends before"):
        file.read("a")


def honest(path: Path) -> bytes:
    save_file({"a": RNG.standard_normal((3, 4)).astype("f4"), "b": np.ones(5, "f2")}, path, {"k": "v"})
    return path.read_bytes()


@settings(max_examples=300, deadline=None)
@given(flips=st.lists(st.tuples(st.integers(0, 10_000), st.integers(0, 255)), max_size=4), cut=st.integers(0, 10_000))
def test_damage_raises_nothing_but_edgeq_errors(
    tmp_path_factory: pytest.TempPathFactory, flips: list[tuple[int, int]], cut: int
) -> None:
    path = tmp_path_factory.mktemp("flip") / "x.safetensors"
    data = bytearray(honest(path))
    for at, value in flips:
        data[at % len(data)] = value
    path.write_bytes(bytes(data[: cut % (len(data) + 1)]) if cut % 3 == 0 else bytes(data))
    try:
        file = SafetensorsFile.open(path)
        for name in file.tensors:
            file.read(name)
    except EdgeqError as error:
        assert "\n" not in error.line


def test_shards_through_the_index(tmp_path: Path) -> None:
    save_file({"a": np.ones(3, "f4")}, tmp_path / "m-1.safetensors")
    save_file({"b": np.zeros(2, "f4")}, tmp_path / "m-2.safetensors")
    index = tmp_path / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": {"a": "m-1.safetensors", "b": "m-2.safetensors"}}))
    shards = open_shards(tmp_path)
    assert np.array_equal(shards["b"].read("b"), np.zeros(2))
    index.write_text(json.dumps({"weight_map": {"c": "m-1.safetensors"}}))
    with pytest.raises(EdgeqError, match="lacks it"):
        open_shards(tmp_path)
    for bad in ("../m-1.safetensors", "/etc/passwd", 3):
        index.write_text(json.dumps({"weight_map": {"a": bad}}))
        with pytest.raises(EdgeqError, match="bad shard"):
            open_shards(tmp_path)


def test_pickles_are_never_loaded(tmp_path: Path) -> None:
    with pytest.raises(EdgeqError, match="no safetensors"):
        open_shards(tmp_path)
    (tmp_path / "pytorch_model.bin").write_bytes(b"\x80\x04cos\nsystem\n")
    with pytest.raises(EdgeqError, match="save_pretrained"):
        open_shards(tmp_path)


def test_parsing_headers_imports_nothing_heavy() -> None:
    code = (
        "import sys; import edgeq.model.safetensors_file, edgeq.model.gguf_file; "
        "print([m for m in ('torch', 'safetensors', 'gguf', 'ml_dtypes') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
