"""Whatever a system prints, a parser gives a value: absence and nonsense are normal."""

from __future__ import annotations

import json

from hypothesis import given
from hypothesis import strategies as st

from edgeq.device.amd import highest_clock_mhz
from edgeq.device.android import parse_getprop
from edgeq.device.apple import cpu_from_sysctl, gpu_limit_bytes, parse_sysctl
from edgeq.device.cpu import count_cpu_list, parse_cpuinfo, parse_size
from edgeq.device.intel import accelerator_from_openvino
from edgeq.device.kernel_probe import parse_lines
from edgeq.device.link import link_rate, pcie_rate

KEYS = st.sampled_from(
    ["processor", "flags", "Features", "model name", "CPU part", "CPU implementer", "hw.ncpu", "hw.optional.arm64"]
)
LINES = st.lists(st.tuples(KEYS | st.text(max_size=8), st.text(max_size=20)), max_size=12)
VALUES = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=9)
OPENVINO = st.sampled_from(["device", "FULL_DEVICE_NAME", "DEVICE_TYPE", "GPU_DEVICE_TOTAL_MEM_SIZE", "DEVICE_GOPS"])


@given(LINES)
def test_colon_separated_texts(lines: list[tuple[str, str]]) -> None:
    text = "\n".join(f"{key}: {value}" for key, value in lines)
    assert parse_cpuinfo(text).processors >= 0
    assert cpu_from_sysctl(parse_sysctl(text)).cores >= 1


@given(st.text(max_size=60))
def test_short_texts(text: str) -> None:
    assert parse_size(text) >= 0
    assert count_cpu_list(text) >= 1
    assert highest_clock_mhz(text) >= 0
    assert isinstance(parse_getprop(text), dict)
    link_rate(text)


@given(st.binary(max_size=200), st.booleans())
def test_probe_output(output: bytes, complete: bool) -> None:
    assert parse_lines(output, complete=complete).complete is complete


@given(st.recursive(VALUES, lambda inner: st.lists(inner) | st.dictionaries(st.text(max_size=9), inner), max_leaves=9))
def test_probe_lines_of_any_json(value: object) -> None:
    assert parse_lines(json.dumps(value).encode(), complete=True).kernels == ()


@given(st.dictionaries(OPENVINO, VALUES | st.dictionaries(st.sampled_from(["f16", "i8", "x"]), VALUES)))
def test_openvino_properties_of_any_kind(values: dict[str, object]) -> None:
    assert accelerator_from_openvino(values).memory_bytes >= 0


@given(st.integers(), st.integers())
def test_links(generation: int, width: int) -> None:
    rate = pcie_rate(generation, width)
    assert rate is None or rate.value > 0


@given(st.integers(1, 1 << 50), st.integers(-5, 1 << 30))
def test_the_gpu_never_gets_more_than_there_is(total: int, wired_mb: int) -> None:
    assert 0 <= gpu_limit_bytes(total, wired_mb) <= total
