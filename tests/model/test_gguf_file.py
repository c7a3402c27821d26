"""The GGUF parser against gguf-py as an oracle, and against damaged and hostile files."""

from __future__ import annotations

import struct
import time
import tracemalloc
from pathlib import Path

import gguf
import numpy as np
import pytest
from gguf.constants import GGML_QUANT_SIZES
from hypothesis import given, settings
from hypothesis import strategies as st

from edgeq.errors import EdgeqError
from edgeq.model.ggml import GGML_TYPES
from edgeq.model.gguf_file import GgufFile

RNG = np.random.default_rng(0)
QUANTIZED = ["Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q8_0", "Q2_K", "Q3_K", "Q4_K", "Q5_K", "Q6_K", "IQ4_NL", "IQ4_XS"]


def honest(path: Path) -> Path:
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_uint32("a.count", 7)
    writer.add_float32("a.eps", 0.5)
    writer.add_bool("a.flag", True)
    writer.add_string("a.text", "grüße")
    writer.add_array("a.numbers", [1, 2, 3])
    writer.add_array("a.flags", [True, False])
    writer.add_array("a.words", ["x", "", "日本"])
    writer.add_array("a.nested", [[1, 2], [3]])
    writer.add_tensor("norm", RNG.standard_normal(64).astype(np.float32))
    writer.add_tensor("half", RNG.standard_normal((3, 32)).astype(np.float16))
    quantized = gguf.quants.quantize(RNG.standard_normal((6, 64)).astype(np.float32), gguf.GGMLQuantizationType.Q8_0)
    writer.add_tensor("q8", quantized, raw_dtype=gguf.GGMLQuantizationType.Q8_0)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def test_the_type_table_is_the_reference_s() -> None:
    theirs = {int(k): (k.name, *v) for k, v in GGML_QUANT_SIZES.items()}
    assert {k: tuple(v) for k, v in GGML_TYPES.items() if k in theirs} == theirs


def test_reads_metadata(tmp_path: Path) -> None:
    meta = GgufFile.open(honest(tmp_path / "x.gguf")).metadata
    assert meta["general.architecture"] == "llama"
    assert (meta["a.count"], meta["a.eps"], meta["a.flag"], meta["a.text"]) == (7, 0.5, True, "grüße")
    assert meta["a.numbers"].tolist() == [1, 2, 3]
    assert meta["a.flags"].tolist() == [True, False] and meta["a.flags"].dtype == bool
    assert meta["a.words"] == ["x", "", "日本"]
    assert [a.tolist() for a in meta["a.nested"]] == [[1, 2], [3]]


def test_tensors_agree_with_the_reference_reader(tmp_path: Path) -> None:
    path = honest(tmp_path / "x.gguf")
    ours, theirs = GgufFile.open(path), gguf.GGUFReader(path)
    assert list(ours.tensors) == [t.name for t in theirs.tensors]
    for t in theirs.tensors:
        mine = ours.tensors[t.name]
        assert mine.shape == tuple(int(n) for n in t.shape)[::-1]
        assert (mine.type, mine.nbytes) == (t.tensor_type.name, t.n_bytes)
        assert ours.data_offset + mine.offset == t.data_offset
        assert np.array_equal(ours.raw(t.name), t.data.view(np.uint8).ravel())
        assert np.array_equal(ours.read(t.name), gguf.quants.dequantize(t.data, t.tensor_type).reshape(mine.shape))


@pytest.mark.parametrize("name", QUANTIZED)
def test_dequantizes_row_ranges(tmp_path: Path, name: str) -> None:
    kind = gguf.GGMLQuantizationType[name]
    elements, block = GGML_QUANT_SIZES[kind]
    data = RNG.integers(0, 60, (5, 2 * block), dtype=np.uint8)  # small bytes: no infinite half-precision scale
    writer = gguf.GGUFWriter(tmp_path / "x.gguf", "llama")
    writer.add_tensor("w", data, raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    file = GgufFile.open(tmp_path / "x.gguf")
    expected = gguf.quants.dequantize(data, kind)
    assert file.tensors["w"].shape == (5, 2 * elements)
    assert np.array_equal(file.read("w"), expected)
    assert np.array_equal(file.read("w", slice(1, 4)), expected[1:4])


def string(text: bytes) -> bytes:
    return struct.pack("<Q", len(text)) + text


def gguf_bytes(pairs: list[bytes], infos: list[bytes], data: bytes = b"", version: int = 3) -> bytes:
    head = b"GGUF" + struct.pack("<IQQ", version, len(infos), len(pairs)) + b"".join(pairs) + b"".join(infos)
    return head + bytes(-len(head) % 32) + data


def info(name: bytes = b"t", dims: tuple[int, ...] = (8,), kind: int = 0, offset: int = 0) -> bytes:
    return string(name) + struct.pack(f"<I{len(dims)}QIQ", len(dims), *dims, kind, offset)


U32, ARRAY, STRING = struct.pack("<I", 4), struct.pack("<I", 9), struct.pack("<I", 8)
ONE = struct.pack("<I", 1)
HUGE = struct.pack("<Q", 1 << 60)
NEST = string(b"n") + ARRAY + (ARRAY + struct.pack("<Q", 1)) * 500
HOSTILE = {
    "not a GGUF": (b"GGML" + bytes(60), "not a GGUF"),
    "empty": (b"", "not a GGUF"),
    "big endian": (b"GGUF" + struct.pack(">IQQ", 3, 0, 0), "big-endian"),
    "version 1": (gguf_bytes([], [], version=1), "version 1"),
    "version 99": (gguf_bytes([], [], version=99), "version 99"),
    "tensor count beyond the file": (b"GGUF" + struct.pack("<IQQ", 3, 1 << 50, 0), "tensor infos"),
    "pair count beyond the file": (b"GGUF" + struct.pack("<IQQ", 3, 0, (1 << 64) - 1), "metadata pairs"),
    "key longer than the file": (gguf_bytes([HUGE + U32 + ONE], []), "claims"),
    "string longer than the file": (gguf_bytes([string(b"k") + STRING + HUGE], []), "would need"),
    "array longer than the file": (gguf_bytes([string(b"k") + ARRAY + U32 + HUGE], []), "would need"),
    "string array longer than the file": (gguf_bytes([string(b"k") + ARRAY + STRING + HUGE], []), "would need"),
    "array of huge strings": (
        gguf_bytes([string(b"k") + ARRAY + STRING + struct.pack("<Q", 1) + HUGE], []),
        "passes the end",
    ),
    "nested arrays": (gguf_bytes([NEST], []), "too deeply"),
    "unknown value type": (gguf_bytes([string(b"k") + struct.pack("<I", 77) + ONE], []), "value type 77"),
    "duplicate key": (gguf_bytes([string(b"k") + U32 + ONE] * 2, []), "appears twice"),
    "key not UTF-8": (gguf_bytes([string(b"\xff") + U32 + ONE], []), "UTF-8"),
    "alignment of zero": (gguf_bytes([string(b"general.alignment") + U32 + bytes(4)], []), "alignment"),
    "duplicate tensor": (gguf_bytes([], [info(), info(offset=32)], bytes(64)), "appears twice"),
    "tensor beyond the file": (gguf_bytes([], [info()], bytes(16)), "truncated"),
    "offset beyond the file": (gguf_bytes([], [info(offset=1 << 62)], bytes(64)), "truncated"),
    "unaligned offset": (gguf_bytes([], [info(offset=4)], bytes(64)), "not aligned"),
    "overlapping tensors": (gguf_bytes([], [info(), info(b"u")], bytes(64)), "overlaps"),
    "unknown tensor type": (gguf_bytes([], [info(kind=31)], bytes(64)), "unknown type 31"),
    "row not of whole blocks": (gguf_bytes([], [info(kind=8)], bytes(64)), "not a multiple"),
    "no dimension": (gguf_bytes([], [info(dims=())], bytes(64)), "0 dimensions"),
    "many dimensions": (gguf_bytes([], [info(dims=(1,) * 9)], bytes(64)), "9 dimensions"),
    "shape that overflows": (gguf_bytes([], [info(dims=(1 << 40, 1 << 40))], bytes(64)), "absurd"),
    "empty shape that overflows": (gguf_bytes([], [info(dims=(0, 1 << 40, 1 << 40))], bytes(64)), "absurd"),
}


@pytest.mark.parametrize("case", HOSTILE)
def test_refuses(tmp_path: Path, case: str) -> None:
    data, says = HOSTILE[case]
    path = tmp_path / "x.gguf"
    path.write_bytes(data)
    with pytest.raises(EdgeqError) as caught:
        GgufFile.open(path)
    assert says in caught.value.line and str(path) in caught.value.line


@settings(max_examples=300, deadline=None)
@given(flips=st.lists(st.tuples(st.integers(0, 10_000), st.integers(0, 255)), max_size=4), cut=st.integers(0, 10_000))
def test_damage_raises_nothing_but_edgeq_errors(
    tmp_path_factory: pytest.TempPathFactory, flips: list[tuple[int, int]], cut: int
) -> None:
    path = honest(tmp_path_factory.mktemp("flip") / "x.gguf")
    data = bytearray(path.read_bytes())
    for at, value in flips:
        data[at % len(data)] = value
    path.write_bytes(bytes(data[: cut % (len(data) + 1)]) if cut % 3 == 0 else bytes(data))
    try:
        file = GgufFile.open(path)
        for name in file.tensors:
            file.read(name)
    except EdgeqError as error:
        assert "\n" not in error.line


def test_hostile_counts_cost_neither_time_nor_memory(tmp_path: Path) -> None:
    path = tmp_path / "x.gguf"
    filler = bytes(1 << 16)
    tracemalloc.start()
    begun = time.perf_counter()
    for count in (1 << 15, 1 << 30, 1 << 63):
        path.write_bytes(gguf_bytes([string(b"k") + ARRAY + U32 + struct.pack("<Q", count)], [], filler))
        with pytest.raises(EdgeqError):
            GgufFile.open(path)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 4 << 20
    assert time.perf_counter() - begun < 5  # a bound on hanging, not a timing
