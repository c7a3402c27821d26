"""The llamacpp runtime: runs GGUF files with llama.cpp, out of the `xllamacpp` wheel, else with a `llama-server`."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from edgeq.errors import EdgeqError
from edgeq.runtimes.opening import check_known, context_of, eos_ids

if TYPE_CHECKING:
    from edgeq.artifact import Artifact
    from edgeq.device.spec import KernelRate
    from edgeq.runtimes.generation import Engine
    from edgeq.runtimes.session import TextSession
    from edgeq.runtimes.text import Tokenizer

# Types of matrices that speeds are expected from, the ones most in use first.
PROBED = ("Q4_0", "Q8_0", "Q4_K", "Q6_K", "Q5_K", "Q5_0", "Q4_1", "F16", "Q3_K", "Q2_K", "Q5_1", "IQ4_NL", "IQ4_XS")
KV_DTYPES = ("f16", "f32", "bf16", "q8_0", "q4_0")


@dataclass(frozen=True, slots=True)
class OpenOptions:
    """How a session is opened.

    Attributes:
        context: most tokens of prompt and answer together; None: 4096, or the model's own limit if that is less. The
            KV cache is as large from the beginning.
        threads: threads of the kernels; None: the physical cores this process may use.
        chunk: prompt tokens per pass; None: 512.
        kv_dtype: of the KV cache: f16, f32, bf16, or q8_0 and q4_0, which take a half and a quarter of f16's memory.
        spin: let the kernels' threads wait for each other by spinning: faster where each has a core of its own, very
            slow where other programs need the cores; None: unless the machine is busy. The first session of a
            process decides for all.
        huge_pages: put the repacked weights into huge pages once they are loaded (Linux): faster decoding.
        gpu_layers: layers whose weights and cache go to a GPU, the last ones first; one more than the model has puts
            the head there too. Needs a llama.cpp that was built with a GPU backend.
    """

    context: int | None = None
    threads: int | None = None
    chunk: int | None = None
    kv_dtype: str = "f16"
    spin: bool | None = None
    huge_pages: bool = True
    gpu_layers: int = 0

    def __post_init__(self) -> None:
        for name in ("context", "threads", "chunk"):
            value = getattr(self, name)
            if value is not None and (not isinstance(value, int) or value < 1):
                raise EdgeqError(f"{name} is {value}, it must be 1 or more")
        if type(self.gpu_layers) is not int or self.gpu_layers < 0:
            raise EdgeqError(f"gpu_layers is {self.gpu_layers}, it must be a number from 0 on")
        if self.kv_dtype not in KV_DTYPES:
            raise EdgeqError(f"llama.cpp has no {self.kv_dtype} cache", hint=f"kv_dtype: {', '.join(KV_DTYPES)}")


class LlamaCppRuntime:
    name = "llamacpp"
    package = "xllamacpp"  # whose version a measurement records

    def missing(self) -> str | None:
        """The packages to install, or None; a `llama-server` on the PATH takes the place of xllamacpp."""
        absent = [p for p in ("xllamacpp", "tokenizers", "jinja2") if find_spec(p) is None]
        if shutil.which("llama-server") is not None:
            absent = [p for p in absent if p != "xllamacpp"]
        return ", ".join(absent) or None

    def open(self, artifact: Artifact, **options: Any) -> TextSession:
        """Load the model and its tokenizer.

        Args:
            options: the fields of `OpenOptions`.

        Raises:
            EdgeqError: a package is missing, an option unknown, a file missing or damaged, an architecture that this
                llama.cpp does not know.
        """
        check_known(self.name, options, OpenOptions.__slots__)
        settings = OpenOptions(**options)
        if absent := self.missing():
            raise EdgeqError(f"running a GGUF needs {absent}", hint="pip install 'edgeq[llamacpp]'")
        from edgeq.runtimes.session import TextSession
        from edgeq.runtimes.text import Tokenizer

        tokenizer = Tokenizer.from_folder(artifact.path)
        engine = _engine(artifact, tokenizer, settings)
        return TextSession(engine, tokenizer, eos_ids=eos_ids(artifact), name=artifact.name)

    def probe(self) -> list[KernelRate]:
        """Rates from whole models, since llama.cpp's kernels are reached in no other way. About 20 seconds."""
        from edgeq.device.model_probe import probe_models

        return probe_models(self, "gguf", "llamacpp/cpu", PROBED, vocabulary=True)


def _engine(artifact: Artifact, tokenizer: Tokenizer, settings: OpenOptions) -> Engine:
    file = artifact.path / str(artifact.options.get("file", "model.gguf"))
    context = context_of(artifact, settings.context)
    options: dict[str, Any] = {"threads": settings.threads, "chunk": settings.chunk, "kv_dtype": settings.kv_dtype}
    options |= {"context": context, "spin": settings.spin, "gpu_layers": settings.gpu_layers}
    if find_spec("xllamacpp") is not None:
        from edgeq.runtimes.llamacpp.engine import open_engine

        return open_engine(file, huge_pages=settings.huge_pages, **options)
    from edgeq.runtimes.llamacpp.server import ServerEngine

    program = shutil.which("llama-server") or "llama-server"
    forced = tokenizer.encode("a", special=False)[-1]
    return ServerEngine(program, file, vocab_size=int(artifact.model["vocab_size"]), forced=forced, **options)
