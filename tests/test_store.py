"""The store keeps what was measured, whatever happens to the file, and several processes may write it at once."""

from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from edgeq.benchmark import Benchmark, Decode, Prefill, Promise, Samples, device_key
from edgeq.device.spec import Accelerator, Cpu, Device, Memory
from edgeq.errors import EdgeqError
from edgeq.store import SCHEMA, Store, cache_home, home


def benchmark(model: str = "tiny", device: str = "here", scheme: str = "rtn-int4-g32") -> Benchmark:
    return Benchmark(
        date="2026-11-22T05:00:00+00:00",
        device=device,
        target="onnxruntime/cpu",
        model=model,
        family="llama",
        scheme=scheme,
        artifact="/tmp/a",
        artifact_bytes=1000,
        threads=2,
        import_s=0.1,
        load_s=0.2,
        prefill=(Prefill(32, Samples((100.0, 110.0)), Samples((0.3, 0.29))),),
        decode=Decode(128, 32, Samples((10.0, 12.0, 11.0))),
        baseline_bytes=10,
        loaded_bytes=20,
        peak_bytes=30,
        load_before=0.0,
        load_during=0.1,
        promise=Promise(decode_tps=12.0, basis="prior"),
        versions=(("edgeq", "0.1.0"),),
    )


def test_what_was_added_comes_back_equal_and_in_order(tmp_path: Path) -> None:
    store = Store(tmp_path / "deep" / "b.jsonl")
    first, second = benchmark("a"), benchmark("b")
    store.add(first)
    store.add(second)
    assert Store(store.path).benchmarks() == [first, second]


def test_filters_by_device_target_scheme_and_model(tmp_path: Path) -> None:
    store = Store(tmp_path / "b.jsonl")
    for one in (benchmark("a"), benchmark("b", device="there"), benchmark("c", scheme="fp16")):
        store.add(one)
    assert [b.model for b in store.benchmarks(device="here")] == ["a", "c"]
    assert [b.model for b in store.benchmarks(scheme="fp16")] == ["c"]
    assert [b.model for b in store.benchmarks(model="b")] == ["b"]
    assert store.benchmarks(target="openvino/gpu") == []


def test_a_device_object_finds_what_was_measured_on_it(tmp_path: Path) -> None:
    cpu, memory = Cpu("Xeon", "x86_64", 2, 2), Memory(24 << 30, 20 << 30)
    device = Device("host", "local", "linux", cpu, memory, (Accelerator("cuda", "RTX 4090"),))
    assert device_key(device) == "Xeon / 2 threads / 24 GiB / RTX 4090"
    limited = replace(device, memory=replace(memory, limit_bytes=4 << 30))
    store = Store(tmp_path / "b.jsonl")
    store.add(benchmark("mine", device=device_key(device)))
    assert [b.model for b in store.benchmarks(device=device)] == ["mine"]
    assert store.benchmarks(device=limited) == []


def test_no_store_yet_is_an_empty_one(tmp_path: Path) -> None:
    store = Store(tmp_path / "none.jsonl")
    assert store.benchmarks() == [] and store.skipped == 0


def test_damaged_lines_are_skipped_and_counted(tmp_path: Path) -> None:
    store = Store(tmp_path / "b.jsonl")
    store.add(benchmark("a"))
    whole = store.path.read_text("utf-8")
    later = json.dumps({"schema": SCHEMA + 1, "benchmark": json.loads(whole)["benchmark"]})
    no_runs = json.loads(whole)
    no_runs["benchmark"]["decode"]["tps"]["runs"] = []
    bad = ["\x00\xff{", "[]", "{}", "[" * 100_000, later, json.dumps(no_runs), whole[: len(whole) // 2]]
    store.path.write_text("\n".join([*bad, ""]) + whole, "utf-8")
    assert [b.model for b in store.benchmarks()] == ["a"]
    assert store.skipped == len(bad)
    store.benchmarks()
    assert store.skipped == len(bad)  # counted afresh at each reading


def test_a_torn_last_line_does_not_swallow_the_next(tmp_path: Path) -> None:
    store = Store(tmp_path / "b.jsonl")
    store.add(benchmark("a"))
    with store.path.open("ab") as stream:
        stream.write(b'{"schema": 1, "bench')
    store.add(benchmark("b"))
    assert [b.model for b in store.benchmarks()] == ["a", "b"]
    assert store.skipped == 1


def test_a_full_disk_leaves_the_store_as_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = Store(tmp_path / "b.jsonl")
    store.add(benchmark("a"))
    before = store.path.read_bytes()
    really_write, calls = os.write, []

    def full(handle: int, data: bytes) -> int:
        calls.append(len(data))
        if len(calls) > 1:
            raise OSError(errno.ENOSPC, "No space left on device")
        return really_write(handle, bytes(data[: len(data) // 2]))

    with monkeypatch.context() as patch:
        patch.setattr(os, "write", full)
        with pytest.raises(EdgeqError, match="No space left") as caught:
            store.add(benchmark("b"))
    assert "\n" not in caught.value.line and str(store.path) in caught.value.line
    assert len(calls) == 2
    assert store.path.read_bytes() == before


ADD_MANY = """
import json, sys
from dataclasses import replace
from pathlib import Path
from edgeq.store import Store
source, path, name = sys.argv[1:]
one = Store(Path(source)).benchmarks()[0]
for i in range(50):
    Store(Path(path)).add(replace(one, model=name + str(i) + "x" * 20_000))
"""


def test_two_processes_never_tear_each_others_lines(tmp_path: Path) -> None:
    source, path = tmp_path / "one.jsonl", tmp_path / "b.jsonl"
    Store(source).add(benchmark())
    workers = [subprocess.Popen([sys.executable, "-c", ADD_MANY, str(source), str(path), name]) for name in "ab"]
    assert [worker.wait(60) for worker in workers] == [0, 0]
    store = Store(path)
    found = [b.model.strip("x") for b in store.benchmarks()]
    assert sorted(found) == sorted(f"{name}{i}" for name in "ab" for i in range(50))
    assert store.skipped == 0


def test_edgeq_home_moves_everything(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EDGEQ_HOME", str(tmp_path))
    assert home() == tmp_path and cache_home() == tmp_path / "cache"
    assert Store().path == tmp_path / "benchmarks.jsonl"
    monkeypatch.delenv("EDGEQ_HOME")
    assert home() != tmp_path and home().name == "edgeq"


def test_importing_the_store_loads_nothing_heavy() -> None:
    code = "import sys, edgeq.store; print([m for m in ('numpy', 'torch', 'psutil', 'rich') if m in sys.modules])"
    assert subprocess.check_output([sys.executable, "-c", code], text=True).strip() == "[]"


def test_samples_are_finite_and_not_empty() -> None:
    samples = Samples.of([10, 12, 11])
    assert (samples.median, samples.best) == (11.0, 12.0)
    assert samples.spread == pytest.approx(1 / 11)
    for wrong in ((), (float("nan"),), (-1.0,), (float("inf"),)):
        with pytest.raises(ValueError, match="finite"):
            Samples(wrong)
