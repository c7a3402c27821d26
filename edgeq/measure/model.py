"""Anything that can be measured: a source model, a neutral checkpoint or an artifact, opened by what it is."""

from __future__ import annotations

import hashlib
import json
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import psutil

from edgeq.artifact import MANIFEST, Artifact, read_artifact, sha256
from edgeq.checkpoint.open import open_weights
from edgeq.checkpoint.store import Checkpoint
from edgeq.checkpoint.weights import Weights, dense
from edgeq.errors import EdgeqError
from edgeq.formats.sources import open_quantized, quantized_folder
from edgeq.model.tensors import parameters
from edgeq.model.tokenizer import open_tokenizer
from edgeq.registry import Session, names, runtime

Logits = npt.NDArray[np.float32]
Tick = Callable[[float], None]  # passes done, in whole sequences


class Measured(ABC):
    """Attributes:
    name, scheme: what it is called and how it is stored.
    vocab_size, max_positions, bos_id: of the model.
    bytes: of its weights as stored, 0 where nobody knows.
    """

    name: str
    scheme: str
    vocab_size: int
    max_positions: int
    bos_id: int | None
    bytes: int

    @abstractmethod
    def tokenizer(self) -> Any:
        """Its tokenizer. Raises an EdgeqError when it has none."""

    @abstractmethod
    def logits(self, sequences: Sequence[Sequence[int]], tick: Tick) -> Iterator[Logits]:
        """float32 (tokens, vocab) of each sequence, one at a time, in their order."""

    @abstractmethod
    def fingerprint(self) -> str:
        """Changes with any of its weights."""

    @abstractmethod
    def close(self) -> None:
        """Give back what it holds."""


def open_model(ref: str | Path) -> Measured:
    """A folder of `edgeq export` or `edgeq quantize`, a model folder (quantized by another tool, perhaps), a GGUF file
    or a hub id.

    Raises:
        EdgeqError: it is none of them, is damaged, or its runtime is not installed.
    """
    path = Path(ref).expanduser()
    if (path / MANIFEST).is_file():
        artifact = read_artifact(path)
        if artifact.runtime in names("edgeq.runtimes") or not quantized_folder(path):
            return ArtifactModel(artifact)
    return WeightsModel(open_quantized(path) if quantized_folder(path) else open_weights(ref))


class ArtifactModel(Measured):
    """An artifact, run by its runtime."""

    def __init__(self, artifact: Artifact) -> None:
        self._artifact = artifact
        self._session: Session = runtime(artifact.runtime).open(artifact)
        facts = artifact.model
        self.name, self.scheme = artifact.name, f"{artifact.scheme} on {artifact.runtime}"
        self.vocab_size = int(facts["vocab_size"])
        self.max_positions = int(facts.get("max_positions", 1 << 20))
        self.bos_id = facts.get("bos_id")
        self.bytes = artifact.total_bytes

    def tokenizer(self) -> Any:
        found = getattr(self._session, "tokenizer", None)
        if found is None:
            raise EdgeqError("the artifact has no tokenizer", where=self._artifact.path)
        return found

    def logits(self, sequences: Sequence[Sequence[int]], tick: Tick) -> Iterator[Logits]:
        for ids in sequences:
            found = self._session.logits(list(ids))
            if found.ndim != 2 or found.shape[0] != len(ids):
                raise EdgeqError(f"the runtime gave logits of shape {found.shape} for {len(ids)} tokens")
            tick(1.0)
            yield found

    def fingerprint(self) -> str:
        return _digest([self._artifact.runtime, self._artifact.files, self._artifact.options])

    def close(self) -> None:
        self._session.close()


class WeightsModel(Measured):
    """A source model or a checkpoint, run by the reference decoder in single precision.

    Where memory holds the model it is kept there; otherwise all sequences go through the layers together, one layer
    resident at a time, so that the weights are read once, whatever the number of sequences.
    """

    def __init__(self, weights: Weights, *, resident: bool | None = None) -> None:
        from edgeq.decoder.decoder import check_supported
        from edgeq.decoder.torch_ops import ABLE

        check_supported(weights.spec, ABLE)
        spec = weights.spec
        self.weights = weights
        checkpoint = weights if isinstance(weights, Checkpoint) else None
        self.name = spec.name
        self.scheme = checkpoint.scheme.name if checkpoint else spec.source_dtype
        self.vocab_size, self.max_positions, self.bos_id = spec.vocab_size, spec.max_positions, spec.bos_id
        files: tuple[Path, ...] = getattr(weights, "files", ())
        self.bytes = checkpoint.total_bytes if checkpoint else sum(f.stat().st_size for f in files)
        if resident is None:  # another model may want its place beside this one
            resident = 4 * parameters(spec) < psutil.virtual_memory().available / 3
        self._resident = resident
        self._model: Any = None

    def tokenizer(self) -> Any:
        return open_tokenizer(self.weights.tokenizer_files(), self.name)

    def logits(self, sequences: Sequence[Sequence[int]], tick: Tick) -> Iterator[Logits]:
        if not self._resident:
            from edgeq.measure.layerwise import layerwise_logits

            yield from layerwise_logits(self.weights, sequences, tick)
            return
        if self._model is None:
            from edgeq.decoder.torch_model import TorchModel

            self._model = TorchModel(self.weights, keep=True)
        for ids in sequences:
            found: Logits = self._model.logits(ids)
            tick(1.0)
            yield found

    def fingerprint(self) -> str:
        if isinstance(self.weights, Checkpoint):
            return _digest({name: f.sha256 for name, f in self.weights.manifest.files.items()})
        files: tuple[Path, ...] = getattr(self.weights, "files", ())
        if files:
            return _digest({f.name: sha256(f) for f in files})
        found = {n: np.ascontiguousarray(dense(self.weights.load(n))) for n in self.weights.names()}
        return _digest({name: hashlib.sha256(value.data).hexdigest() for name, value in found.items()})

    def close(self) -> None:
        self._model = None


def _digest(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True, default=str).encode()).hexdigest()
