"""What is asked of a plan, as it is written."""

from __future__ import annotations

import pytest

from edgeq.errors import EdgeqError
from edgeq.plan import Request, parse_size


@pytest.mark.parametrize(
    ("text", "size"), [("6GB", 6 * 10**9), ("5.5GiB", int(5.5 * 2**30)), ("800 mb", 8 * 10**8), ("4096", 4096)]
)
def test_sizes(text, size):
    assert parse_size(text) == size


@pytest.mark.parametrize("text", ["potato", "", "-1GB", "6 zebras", "1e3"])
def test_bad_sizes(text):
    with pytest.raises(EdgeqError, match="not a size"):
        parse_size(text)


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("context", 0, "context of 0"),
        ("batch", 0, "0 sequences"),
        ("min_tps", -1.0, "-1 tokens/s"),
        ("min_tps", float("nan"), "tokens/s"),
        ("kv_dtype", "f8", "unknown KV cache dtype"),
        ("objective", "fun", "unknown objective"),
        ("targets", ("llamacpp/abacus",), "unknown target"),
        ("max_memory", 0, "no memory"),
    ],
)
def test_bad_requests(field, value, message):
    with pytest.raises(EdgeqError, match=message) as error:
        Request(**{field: value})
    assert error.value.hint
