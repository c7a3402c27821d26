"""Tokenizer and chat templates, with transformers as the oracle."""

from __future__ import annotations

import json

import pytest

from edgeq.errors import EdgeqError
from edgeq.runtimes.text import Tokenizer

TALK = [
    {"role": "system", "content": "Be <brief> & 'kind'"},
    {"role": "user", "content": "Grüße 🙂"},
    {"role": "assistant", "content": "Hi"},
    {"role": "user", "content": "bye"},
]
TEMPLATES = {
    "plain": "{% for m in messages %}<s>{{ m.role }}:{{ m['content'] }}<|end|>\n{% endfor %}",
    "prompt": "{{ bos_token }}{% for m in messages %}{{ m.content | trim }}{{ eos_token }}{% endfor %}"
    "{% if add_generation_prompt %}<s>assistant{% endif %}",
    "blocks": "{% for m in messages %}\n  {% if m.role == 'system' %}\n    S {{ m.content }}\n  {% endif %}\n"
    "{% endfor %}",
    "json": "{{ messages | tojson }} {{ messages[1] | tojson(indent=2) }}",
    "loops": "{% for m in messages %}{% if loop.index > 2 %}{% break %}{% endif %}{{ m.content }}{% endfor %}",
    "generation": "{% for m in messages %}{% generation %}{{ m.content }}{% endgeneration %}{% endfor %}",
    "names": "{% set ns = namespace(n=0) %}{% for m in messages %}{% set ns.n = ns.n + 1 %}{% endfor %}{{ ns.n }}",
    "tools": "{% if tools is none %}no tools{% endif %}{{ strftime_now('%Y') }}{{ unknown_name }}",
}


@pytest.mark.parametrize("name", TEMPLATES)
@pytest.mark.parametrize("prompt", [True, False])
def test_templates_render_as_in_transformers(tokenizer_folder, tmp_path, name, prompt):
    from transformers import PreTrainedTokenizerFast

    folder = tokenizer_folder(tmp_path / "t", TEMPLATES[name])
    theirs = PreTrainedTokenizerFast.from_pretrained(str(folder))
    ours = Tokenizer.from_folder(folder)
    text = theirs.apply_chat_template(TALK, tokenize=False, add_generation_prompt=prompt)
    assert ours.render(TALK, add_generation_prompt=prompt) == text
    ids = theirs.apply_chat_template(TALK, tokenize=True, add_generation_prompt=prompt, return_dict=False)
    assert ours.encode_chat(TALK, add_generation_prompt=prompt) == ids


@pytest.mark.parametrize("text", ["", "Hello", "Grüße 🙂\n\tx", "<s>a</s>b<|end|>", "ﬁ é"])
def test_encode_and_decode_as_in_transformers(tokenizer_folder, tmp_path, text):
    from transformers import PreTrainedTokenizerFast

    folder = tokenizer_folder(tmp_path / "t")
    theirs, ours = PreTrainedTokenizerFast.from_pretrained(str(folder)), Tokenizer.from_folder(folder)
    assert ours.encode(text) == theirs.encode(text)
    ids = theirs.encode(text)
    assert ours.decode(ids) == theirs.decode(ids, skip_special_tokens=True)
    assert ours.decode(ids, skip_special=False) == theirs.decode(ids)


def test_bos_rule(tokenizer_folder, tmp_path):
    bos = 256
    folder = tokenizer_folder(tmp_path / "none")
    assert Tokenizer.from_folder(folder).encode("a")[0] != bos
    always = Tokenizer.from_folder(tokenizer_folder(tmp_path / "true", add_bos_token=True))
    assert always.encode("a")[0] == bos
    assert always.encode("a", special=False)[0] != bos
    assert always.encode_chat([{"role": "user", "content": "a"}]).count(bos) == 2  # the template's own

    data = json.loads((folder / "tokenizer.json").read_text())
    single = [{"SpecialToken": {"id": "<s>", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}]
    specials = {"<s>": {"id": "<s>", "ids": [bos], "tokens": ["<s>"]}}
    data["post_processor"] = {
        "type": "TemplateProcessing",
        "single": single,
        "pair": single,
        "special_tokens": specials,
    }
    data["post_processor"]["pair"] = [*single, {"Sequence": {"id": "B", "type_id": 1}}]
    for name, config, first in (("post", {}, True), ("post-false", {"add_bos_token": False}, False)):
        other = tokenizer_folder(tmp_path / name, **config)
        (other / "tokenizer.json").write_text(json.dumps(data))
        assert (Tokenizer.from_folder(other).encode("a")[0] == bos) is first


def test_stored_padding_and_truncation_are_ignored(tokenizer_folder, tmp_path):
    import tokenizers

    folder = tokenizer_folder(tmp_path / "t")
    inner = tokenizers.Tokenizer.from_file(str(folder / "tokenizer.json"))
    inner.enable_padding(length=8)
    inner.enable_truncation(4)
    inner.save(str(folder / "tokenizer.json"))
    assert len(Tokenizer.from_folder(folder).encode("abc")) == 3
    assert len(Tokenizer.from_folder(folder).encode("abcdefghi")) == 9


@pytest.mark.parametrize(
    "stored",
    [
        [{"name": "tool_use", "template": "T"}, {"name": "default", "template": "D"}],
        {"default": "D", "rag": "R"},
        [{"name": "only", "template": "D"}],
        "D",
    ],
)
def test_template_in_every_form(tokenizer_folder, tmp_path, stored):
    folder = tokenizer_folder(tmp_path / "t", stored)
    assert Tokenizer.from_folder(folder).render([]) == "D"
    (folder / "chat_template.jinja").write_text("file")
    assert Tokenizer.from_folder(folder).render([]) == "file"


@pytest.mark.parametrize("template", [None, [], {"a": "x", "b": "y"}, 3])
def test_no_template(tokenizer_folder, tmp_path, template):
    tokenizer = Tokenizer.from_folder(tokenizer_folder(tmp_path / "t", template))
    assert tokenizer.template is None
    with pytest.raises(EdgeqError, match=r"no chat template.*--raw"):
        tokenizer.render([])


@pytest.mark.parametrize(
    ("template", "message"),
    [
        ("{% for m in messages %}", "template is not valid"),
        ("{{ raise_exception('roles must alternate') }}", "refuses this conversation: roles must alternate"),
        ("{{ messages[0].content + 1 }}", "fails on this conversation"),
        ("{{ messages.append(1) }}", "refuses this conversation"),
        ("{{ ''.__class__.__mro__ }}", "refuses this conversation"),
        ("{{ messages[99].content }}", "refuses this conversation"),
        ("{% for i in range(10000000) %}x{% endfor %}", "fails on this conversation"),
    ],
)
def test_broken_and_hostile_templates(tokenizer_folder, tmp_path, template, message):
    tokenizer = Tokenizer.from_folder(tokenizer_folder(tmp_path / "t", template))
    with pytest.raises(EdgeqError, match=message):
        tokenizer.render([{"role": "user", "content": "x"}])


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b'{"version": "1.0", "model": {}}', b"\xff\xfe", b"[" * 100_000])
def test_damaged_files(tokenizer_folder, tmp_path, content):
    folder = tokenizer_folder(tmp_path / "t")
    good = (folder / "tokenizer.json").read_bytes()
    (folder / "tokenizer.json").write_bytes(content)
    with pytest.raises(EdgeqError, match="tokenizer cannot be read"):
        Tokenizer.from_folder(folder)
    (folder / "tokenizer.json").write_bytes(good)
    (folder / "tokenizer_config.json").write_bytes(content)
    if content[:1] == b"{" and len(content) > 1:
        assert Tokenizer.from_folder(folder).template is None
        return
    with pytest.raises(EdgeqError, match="tokenizer's configuration"):
        Tokenizer.from_folder(folder)


def test_missing_files(tokenizer_folder, tmp_path):
    folder = tokenizer_folder(tmp_path / "t")
    (folder / "tokenizer_config.json").unlink()
    assert Tokenizer.from_folder(folder).decode([0]) == "!"
    (folder / "tokenizer.json").unlink()
    with pytest.raises(EdgeqError, match="no tokenizer"):
        Tokenizer.from_folder(folder)
