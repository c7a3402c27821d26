"""`genai_config.json`: what makes the same folder load in onnxruntime-genai."""

from __future__ import annotations

from typing import Any

from edgeq.model.spec import Attention, ModelSpec

# Model types that onnxruntime-genai knows by name; `decoder` is its type for any other decoder-only graph.
_TYPES = {"llama", "qwen2", "qwen3", "gemma3_text", "smollm3", "mistral"}


def genai_config(
    spec: ModelSpec, positions: int, filename: str = "model.onnx", *, rounded_inputs: bool = False
) -> dict[str, Any]:
    """The configuration, with greedy search as its default.

    Args:
        rounded_inputs: some products have 8-bit inputs. x86-64 without VNNI adds pairs of them in 16 bits, which is not
            always enough; the option has onnxruntime store their weights as uint8 instead. With VNNI it is not needed
            and makes prefill 1.2 to 1.7 times as long; edgeq's own session sets it where it is needed.
    """
    mixer = spec.layers[0].mixer
    assert isinstance(mixer, Attention)
    session: dict[str, Any] = {"provider_options": []}
    if rounded_inputs:
        session["session.x64quantprecision"] = "1"
    eos = list(spec.eos_ids) or [0]
    return {
        "model": {
            "bos_token_id": spec.bos_id if spec.bos_id is not None else eos[0],
            "context_length": positions,
            "eos_token_id": eos if len(eos) > 1 else eos[0],
            "pad_token_id": spec.pad_id if spec.pad_id is not None else eos[0],
            "type": spec.family if spec.family in _TYPES else "decoder",
            "vocab_size": spec.vocab_size,
            "decoder": {
                "filename": filename,
                "session_options": session,
                "head_size": mixer.head_dim,
                "hidden_size": spec.hidden_size,
                "num_attention_heads": mixer.heads,
                "num_hidden_layers": spec.n_layers,
                "num_key_value_heads": mixer.kv_heads,
                "inputs": {
                    "input_ids": "input_ids",
                    "attention_mask": "attention_mask",
                    "past_key_names": "past_key_values.%d.key",
                    "past_value_names": "past_key_values.%d.value",
                },
                "outputs": {
                    "logits": "logits",
                    "present_key_names": "present.%d.key",
                    "present_value_names": "present.%d.value",
                },
            },
        },
        "search": {"do_sample": False, "max_length": positions, "past_present_share_buffer": True},
    }


def standard(config: dict[str, Any], accuracy_level: int, *, grows: bool) -> dict[str, Any]:
    """The configuration for a graph in standard operators: the arithmetic of the fused products, which such a graph
    can't say itself, and, where its caches grow, that they do and that positions are given."""
    decoder = config["model"]["decoder"]
    decoder["session_options"]["session.qdq_matmulnbits_accuracy_level"] = str(accuracy_level)
    if grows:
        decoder["inputs"]["position_ids"] = "position_ids"
        config["search"]["past_present_share_buffer"] = False
    return config
