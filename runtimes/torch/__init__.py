"""The torch runtime: the reference decoder on an artifact's checkpoint. For comparisons, not for speed.

The only runtime that stands on the core's decoder: it runs the checkpoint that an artifact was exported from, so its
logits are what any other runtime's are measured against.
"""

from __future__ import annotations

from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from edgeq.errors import EdgeqError
from edgeq.runtimes.opening import DEFAULT_CONTEXT, check_known

if TYPE_CHECKING:
    from pathlib import Path

    from edgeq.artifact import Artifact
    from edgeq.device.spec import KernelRate
    from edgeq.runtimes.session import TextSession
    from edgeq.runtimes.text import Tokenizer

DTYPES = {"f32": "float32", "bf16": "bfloat16", "f16": "float16"}


class TorchRuntime:
    name = "torch"

    def missing(self) -> str | None:
        """The packages to install, or None."""
        absent = [p for p in ("torch", "tokenizers", "jinja2") if find_spec(p) is None]
        return ", ".join(absent) or None

    def open(self, artifact: Artifact, **options: Any) -> TextSession:
        """Open the checkpoint that the artifact names.

        Args:
            options: `context`, most tokens of prompt and answer together; `threads` of torch's kernels; `device`, cpu
                or cuda; `dtype` of weights, activations and cache: f32, bf16, f16 (f32 on the processor, bf16 on a
                GPU where it is not said).

        Raises:
            EdgeqError: a package is missing, an option unknown, the checkpoint gone or damaged.
        """
        if absent := self.missing():
            raise EdgeqError(f"the reference decoder needs {absent}", hint="pip install 'edgeq[quantize]'")
        check_known(self.name, options, ("context", "threads", "device", "dtype"))
        if artifact.checkpoint is None:
            raise EdgeqError("the artifact does not say which checkpoint it was exported from", where=artifact.path)
        return _open(artifact, **options)

    def tokenizer(self, folder: Path) -> Tokenizer:
        """A model's tokenizer alone, for work on text that needs no session; torch is not imported."""
        from edgeq.runtimes.text import Tokenizer

        return Tokenizer.from_folder(folder)

    def probe(self) -> list[KernelRate]:
        """No rates: this runtime is a reference, nothing is planned for it."""
        return []


def _open(
    artifact: Artifact,
    context: int | None = None,
    threads: int | None = None,
    device: str = "cpu",
    dtype: str | None = None,
) -> TextSession:
    import torch

    from edgeq.checkpoint.open import open_weights
    from edgeq.decoder.torch_model import TorchModel
    from edgeq.runtimes.session import TextSession
    from edgeq.runtimes.text import Tokenizer
    from edgeq.runtimes.torch.engine import TorchEngine

    for name, value in (("context", context), ("threads", threads)):
        if value is not None and value < 1:
            raise EdgeqError(f"{name} is {value}, it must be 1 or more")
    dtype = dtype or ("f32" if device == "cpu" else "bf16")
    if dtype not in DTYPES:
        raise EdgeqError(f"the torch runtime has no dtype {dtype!r}", hint=f"Known: {', '.join(DTYPES)}")
    _check_device(device)
    if threads:
        torch.set_num_threads(threads)
    weights = open_weights(artifact.checkpoint or "")
    longest = min(weights.spec.max_positions, context or DEFAULT_CONTEXT)
    engine = TorchEngine(TorchModel(weights, dtype=getattr(torch, DTYPES[dtype]), device=device), longest)
    eos = weights.spec.eos_ids
    return TextSession(engine, Tokenizer.from_folder(artifact.path), eos_ids=eos, name=artifact.name)


def _check_device(device: str) -> None:
    import torch

    if device not in ("cpu", "cuda"):
        raise EdgeqError(f"the torch runtime knows no device {device!r}", hint="Known: cpu, cuda")
    if device == "cuda" and not torch.cuda.is_available():
        hint = "Install the NVIDIA driver and a torch built for CUDA, or leave device=cpu"
        raise EdgeqError(f"torch {torch.__version__} finds no NVIDIA GPU here", hint=hint)
