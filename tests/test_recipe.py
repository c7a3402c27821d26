"""Recipes survive TOML, and say what is wrong with a bad one."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeq.errors import EdgeqError
from edgeq.recipe import BITS, GROUP_SIZES, Recipe, parse_recipe, read_recipe, recipe_for, write_recipe
from edgeq.scheme import F16, int_grid, named_scheme

recipes = st.builds(
    Recipe,
    model=st.text(st.characters(exclude_categories=["Cs"]), max_size=30),
    method=st.sampled_from(["rtn", "gptq"]),
    bits=st.sampled_from(BITS),
    group_size=st.sampled_from(GROUP_SIZES),
    symmetric=st.booleans(),
    embed_bits=st.sampled_from(BITS),
    embed_group_size=st.sampled_from(GROUP_SIZES),
    head=st.sampled_from(["embed", "linear", "float"]),
    seed=st.integers(0, 1 << 40),
)


@given(recipe=recipes)
def test_toml_round_trip(recipe: Recipe) -> None:
    assert parse_recipe(recipe.to_toml()) == recipe


def test_file_round_trip(tmp_path: Path) -> None:
    write_recipe(tmp_path / "r.toml", Recipe("a/b", bits=3))
    assert read_recipe(tmp_path / "r.toml") == Recipe("a/b", bits=3)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("model = ", "bad TOML"),
        ("bits = 4", "lacks 'model'"),
        ('model = "x"\nbitz = 4', "unknown field 'bitz'"),
        ('model = "x"\nbits = "4"', "should be int"),
        ('model = "x"\nbits = true', "should be int"),
        ('model = "x"\nbits = 9', "bits is 9"),
        ('model = "x"\ngroup_size = 0', "group_size is 0"),
        ('model = "x"\nhead = "big"', "expected one of"),
        ("x = " + "[" * 5000, "bad TOML"),
    ],
)
def test_bad_recipes(text: str, says: str) -> None:
    with pytest.raises(EdgeqError, match=says):
        parse_recipe(text, "r.toml")


def test_unreadable_recipes(tmp_path: Path) -> None:
    with pytest.raises(EdgeqError, match="cannot read"):
        read_recipe(tmp_path / "none.toml")
    (tmp_path / "b.toml").write_bytes(b"model = '\xff'")
    with pytest.raises(EdgeqError, match="UTF-8"):
        read_recipe(tmp_path / "b.toml")


@pytest.mark.parametrize("name", ["rtn-int4-g32", "gptq-int3-g128-sym", "rtn-int4", "rtn-int8-g64", "fp16"])
def test_a_planned_scheme_and_its_recipe_are_the_same_thing(name: str) -> None:
    scheme = named_scheme(name)
    assert recipe_for("m", scheme).scheme == scheme


def test_a_file_type_of_llama_cpp_keeps_its_name() -> None:
    assert recipe_for("m", named_scheme("gguf-q4_k_m")) == Recipe("m", grid="gguf-q4_k_m", embed_grid="q8_0")


def test_schemes_without_a_recipe() -> None:
    for name in ("gguf-f16", "fp32"):
        with pytest.raises(EdgeqError, match="no recipe"):
            recipe_for("m", named_scheme(name))


def test_the_head_has_its_own_grid() -> None:
    assert Recipe("m").scheme.head is None
    assert Recipe("m", head="linear").scheme.head == int_grid(4, 32)
    assert Recipe("m", head="float").scheme.head == F16
