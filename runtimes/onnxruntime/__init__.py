"""The onnxruntime runtime: runs what the ONNX exporter writes, with onnxruntime, numpy, tokenizers and jinja2 only."""

from __future__ import annotations

from dataclasses import dataclass
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from edgeq.errors import EdgeqError
from edgeq.runtimes.onnxruntime.providers import check_device
from edgeq.runtimes.opening import check_known, context_of, eos_ids, positive, switch_of

if TYPE_CHECKING:
    from edgeq.artifact import Artifact
    from edgeq.device.spec import KernelRate
    from edgeq.runtimes.session import TextSession


@dataclass(frozen=True, slots=True)
class OpenOptions:
    """How a session is opened.

    Attributes:
        context: most tokens of prompt and answer together; None: 4096, or the model's own limit if that is less. The
            KV cache starts small and doubles as it fills, so a large context costs nothing before it is used.
        threads: threads of the kernels; None: the physical cores this process may use.
        chunk: prompt tokens per run of the graph; None: chosen so that their logits stay below 64 MiB.
        huge_pages: put the packed weights into huge pages once they are loaded (Linux): faster decoding.
        spin: let idle kernel threads spin between operations: faster, but keeps the cores busy while generating.
        device: `cpu`, `cuda` or `directml` where the installed onnxruntime has it, or `auto`: the first of
            cuda, directml and cpu that starts.
    """

    context: int | None = None
    threads: int | None = None
    chunk: int | None = None
    spin: bool = True
    huge_pages: bool = True
    device: str = "cpu"

    def __post_init__(self) -> None:
        for name in ("context", "threads", "chunk"):
            value = getattr(self, name)
            if value is not None and (not isinstance(value, int) or value < 1):
                raise EdgeqError(f"{name} is {value}, it must be 1 or more")
        check_device(self.device)


class OnnxRuntime:
    name = "onnxruntime"

    def missing(self) -> str | None:
        """The packages to install, or None."""
        absent = [p for p in ("onnxruntime", "tokenizers", "jinja2") if find_spec(p) is None]
        return ", ".join(absent) or None

    def open(self, artifact: Artifact, **options: Any) -> TextSession:
        """Load the model and its tokenizer.

        Args:
            options: the fields of `OpenOptions`.

        Raises:
            EdgeqError: a package is missing, an option unknown, a file missing or damaged, a graph of another kind.
        """
        check_known(self.name, options, OpenOptions.__slots__)
        settings = OpenOptions(**options)
        if absent := self.missing():
            raise EdgeqError(f"running an ONNX model needs {absent}", hint="pip install 'edgeq[onnxruntime]'")
        from edgeq.runtimes.onnxruntime.engine import open_engine
        from edgeq.runtimes.session import TextSession
        from edgeq.runtimes.text import Tokenizer

        switch, context = switch_of(artifact), context_of(artifact, settings.context)
        tokenizer = Tokenizer.from_folder(artifact.path)
        engine = open_engine(
            artifact.path / ("model.ort" if artifact.options.get("format") == "ort" else "model.onnx"),
            context=context,
            head_dim=positive(artifact.model.get("head_dim")),
            threads=settings.threads,
            chunk=settings.chunk,
            spin=settings.spin,
            huge_pages=settings.huge_pages,
            device=settings.device,
            accuracy_level=0 if artifact.options.get("accuracy_level") == 0 else 4,
            long=switch is not None and context > switch,
            rounded_inputs="activations" in artifact.options,
        )
        return TextSession(engine, tokenizer, eos_ids=eos_ids(artifact), name=artifact.name)

    def probe(self) -> list[KernelRate]:
        """Measure the kernels this runtime's artifacts spend their time in, on this machine."""
        from edgeq.runtimes.onnxruntime.probe import probe

        rates: list[KernelRate] = probe()
        return rates
