"""What the estimate promises for a benchmark's workload, to be printed beside what was measured."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

from edgeq.artifact import Artifact
from edgeq.benchmark import Promise
from edgeq.checkpoint.store import Checkpoint
from edgeq.device.spec import Device
from edgeq.errors import EdgeqError
from edgeq.estimate import ceiling, footprint
from edgeq.estimate.prior import Expected
from edgeq.estimate.speed import expected_decode, expected_prefill
from edgeq.jsonable import from_json
from edgeq.measure.bench import Workload
from edgeq.model.spec import ModelSpec
from edgeq.plan.expected import Experience
from edgeq.plan.targets import target
from edgeq.scheme import Scheme


def promise_for(
    device: Device, spec: ModelSpec, scheme: Scheme, target_name: str, work: Workload, kv_dtype: str | None = None
) -> Promise:
    """The plan's own estimate, for the lengths that the benchmark runs; `kv_dtype` None: the runtime's own.

    Decode speed is that in the middle of the decoding (`context + tokens / 2` tokens in the cache), prefill speed and
    memory those of the longest sequence.
    """
    kv = target(target_name).kv_dtype(kv_dtype)
    middle = work.context + work.tokens // 2
    longest = max(*work.prompt_tokens, work.context + work.tokens)
    prompt = max(work.prompt_tokens)
    bound = ceiling(device, spec, scheme, target_name, middle, kv_dtype=kv, prompt=prompt)
    expected: Expected | None
    if work.threads is None:
        expected = Experience(device).decode(spec, scheme, target_name, middle, 1, bound.decode_tps, kv)
    else:  # what was measured before had another number of threads
        expected = expected_decode(device, spec, scheme, target_name, context=middle, threads=work.threads)
    prefill = expected_prefill(device, spec, scheme, target_name, prompt=prompt, threads=work.threads)
    return Promise(
        decode_tps=expected.tps if expected else None,
        prefill_tps=prefill.tps if prefill else None,
        prefill_tokens=prompt if prefill else None,
        memory_bytes=footprint(spec, scheme, target_name, longest, kv_dtype=kv).total,
        ceiling_tps=bound.decode_tps,
        basis=f"{expected.basis}, {expected.detail}" if expected else "",
    )


def promise_of(artifact: Artifact, device: Device, work: Workload) -> Promise:
    """What the plan promised when the artifact was made, else what it would promise now, else nothing.

    Nothing is known when the manifest has no plan and the checkpoint with the model's description is gone.
    """
    recorded: Any = artifact.plan.get("promise")
    if recorded is not None:
        return from_json(Promise, recorded, artifact.path)
    if artifact.checkpoint is not None:
        with suppress(EdgeqError):
            made = Checkpoint.open(artifact.checkpoint)
            fitted = work.fitted(int(artifact.model.get("max_positions", 1 << 20)))
            kv = artifact.options.get("kv_dtype")
            return promise_for(device, made.spec, made.scheme, f"{artifact.runtime}/cpu", fitted, kv)
    return Promise()
