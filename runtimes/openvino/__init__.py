"""The OpenVINO runtime: runs what the OpenVINO exporter writes, with openvino, numpy, tokenizers and jinja2 only."""

from __future__ import annotations

from dataclasses import dataclass
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from edgeq.errors import EdgeqError

if TYPE_CHECKING:
    from edgeq.artifact import Artifact
    from edgeq.device.spec import KernelRate
    from edgeq.runtimes.session import TextSession

FILE = "openvino_model.xml"
_DEFAULT_CONTEXT = 4096
# Types of matrices that speeds are expected from, the ones most in use first.
PROBED = ("int4-g32", "int8-g32", "int4-g128", "F16", "int8-row")
_DEVICES = ("cpu", "gpu")
_PRECISIONS = ("f32", "bf16", "f16")


@dataclass(frozen=True, slots=True)
class OpenOptions:
    """How a session is opened.

    Attributes:
        context: most tokens of prompt and answer together; None: 4096, or the model's own limit if that is less.
        threads: threads of the CPU's kernels; None: the physical cores this process may use.
        chunk: prompt tokens per inference; None: 512.
        device: `cpu` or `gpu`; None: what the artifact was exported for where this machine has it, else the CPU.
        precision: of the arithmetic between the matrices: `f32`, `bf16`, `f16`; None: f32 on the CPU, where it costs
            nothing to decode, the plugin's own choice elsewhere.
        paged: PagedAttention over blocks, faster and the more so the longer the sequence, in the place of attention
            over the model's state; None: on a CPU, for every model whose attention has that form.
        huge_pages: put the packed weights into huge pages once they are loaded (Linux): faster decoding.
    """

    context: int | None = None
    threads: int | None = None
    chunk: int | None = None
    device: str | None = None
    precision: str | None = None
    paged: bool | None = None
    huge_pages: bool = True

    def __post_init__(self) -> None:
        for name in ("context", "threads", "chunk"):
            value = getattr(self, name)
            if value is not None and (not isinstance(value, int) or value < 1):
                raise EdgeqError(f"{name} is {value}, it must be 1 or more")
        for name, known in (("device", _DEVICES), ("precision", _PRECISIONS)):
            value = getattr(self, name)
            if value is not None and value not in known:
                hint = "openvino-genai's LLMPipeline runs artifacts on an NPU" if value == "npu" else None
                raise EdgeqError(f"{name} is {value!r}, known are {', '.join(known)}", hint=hint)


class OpenVinoRuntime:
    name = "openvino"

    def missing(self) -> str | None:
        """The packages to install, or None."""
        absent = [p for p in ("openvino", "tokenizers", "jinja2") if find_spec(p) is None]
        return ", ".join(absent) or None

    def open(self, artifact: Artifact, **options: Any) -> TextSession:
        """Load the model and its tokenizer.

        Args:
            options: the fields of `OpenOptions`.

        Raises:
            EdgeqError: a package is missing, an option unknown, a file missing or damaged, a model of another kind,
                a device that this machine does not have.
        """
        unknown = sorted(set(options) - set(OpenOptions.__slots__))
        if unknown:
            known = ", ".join(OpenOptions.__slots__)
            raise EdgeqError(f"the openvino runtime has no option {unknown[0]!r}", hint=f"Known: {known}")
        settings = OpenOptions(**options)
        if absent := self.missing():
            raise EdgeqError(f"running an OpenVINO model needs {absent}", hint="pip install 'edgeq[openvino]'")
        from edgeq.runtimes.openvino.engine import open_engine
        from edgeq.runtimes.session import TextSession
        from edgeq.runtimes.text import Tokenizer

        limit = _positive(artifact.model.get("max_positions")) or _DEFAULT_CONTEXT
        if settings.context is not None and settings.context > limit:
            raise EdgeqError(f"the model knows {limit} positions, a context of {settings.context} is too long")
        switch = _positive(artifact.model.get("rope_switch"))  # longer sequences use other rotary frequencies
        context = settings.context or min(limit, switch or limit, _DEFAULT_CONTEXT)
        tokenizer = Tokenizer.from_folder(artifact.path)
        engine = open_engine(
            artifact.path / FILE,
            context=context,
            threads=settings.threads,
            chunk=settings.chunk,
            device=settings.device,
            wanted_device=str(artifact.options.get("device", "cpu")),
            precision=settings.precision,
            long=switch is not None and context > switch,
            paged=settings.paged,
            huge_pages=settings.huge_pages,
            rounded_inputs="static" in str(artifact.options.get("activations", "")),
        )
        return TextSession(engine, tokenizer, eos_ids=_eos_ids(artifact), name=artifact.name)

    def probe(self) -> list[KernelRate]:
        """Rates from whole models, as the plugin compiles them: it fuses what single nodes would not show. About 20
        seconds."""
        from edgeq.device.model_probe import probe_models

        return probe_models(self, "openvino", "openvino/cpu", PROBED)


def _positive(value: Any) -> int | None:
    return value if isinstance(value, int) and value > 0 else None


def _eos_ids(artifact: Artifact) -> list[int]:
    value = artifact.model.get("eos_ids")
    values = value if isinstance(value, list) else [value]
    return [v for v in values if isinstance(v, int)]
