"""Rotations folded into the weights (QuaRot, arXiv 2404.00456; SpinQuant, arXiv 2405.16406): outliers are spread out.

R1 turns the residual stream: `embed`, `o` and `down` write it turned, `q`, `k`, `v`, `gate`, `up` and `head` turn it
back. RMS norms don't see a rotation once their weights are ones, so these move into the matrices behind them, which
takes an embedding and a head that are two tensors. R2 turns the values of each key/value head; `o` turns them back.
The turned network computes what the original does, with the same operations.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt

from edgeq.checkpoint.weights import Weights, dense
from edgeq.errors import EdgeqError
from edgeq.model.spec import MLP, Attention, ModelSpec
from edgeq.model.tensors import tensors

Floats = npt.NDArray[np.float32]
Doubles = npt.NDArray[np.float64]

CHUNK = 1 << 20  # elements turned at once, in float64
READERS = {"q": "attn_norm", "k": "attn_norm", "v": "attn_norm", "gate": "mlp_norm", "up": "mlp_norm"}
WRITERS = ("o", "down")


def rotated(source: Weights, seed: int) -> TurnedWeights:
    """`source` with R1 and R2 folded in, tensor by tensor as it is asked for.

    Raises:
        EdgeqError: an architecture that rotations can't be folded into.
    """
    why = refuses(source.spec)
    if why:
        raise EdgeqError(
            f"rotations can't be folded into this model: {why}",
            where=source.spec.location or source.spec.name,
            hint="Leave `rotate` out of the method",
        )
    return TurnedWeights(source, seed)


def refuses(spec: ModelSpec) -> str | None:
    """Why rotations can't be folded into a model, or None when they can."""
    if spec.norm_layout != "pre":
        return (
            f"its norms ({spec.norm_layout}) act on what the layers put out, where a rotation can't pass their weights"
        )
    for i, layer in enumerate(spec.layers):
        if not isinstance(layer.mixer, Attention) or not isinstance(layer.ffn, MLP):
            return f"layer {i} is not softmax attention with a dense MLP"
    return None


@dataclass(frozen=True, slots=True)
class Rotation:
    """An orthogonal matrix (n, n) that is cheap to apply: x -> (small (x) Hadamard) diag(signs) x.

    n = m * 2**k, m odd. A Sylvester Hadamard matrix of order 2**k times a random orthogonal one of order m, after
    random signs: the randomized Hadamard transform where n is a power of two.
    """

    signs: Doubles
    small: Doubles

    @classmethod
    def random(cls, n: int, rng: np.random.Generator) -> Rotation:
        odd = n // (n & -n)
        q, r = np.linalg.qr(rng.standard_normal((odd, odd)))
        return cls(rng.choice(np.array([-1.0, 1.0]), n), q * np.sign(np.diagonal(r)))

    def rows(self, x: npt.NDArray[np.floating]) -> Doubles:
        """Every row of x (rows, n) turned: x @ R^T, float64."""
        odd, n = len(self.small), len(self.signs)
        y = (x * self.signs).reshape(-1, odd, n // odd)
        half = 1
        while half < n // odd:  # fast Walsh-Hadamard transform
            pairs = y.reshape(len(y), odd, -1, 2, half)
            y = np.stack((pairs[..., 0, :] + pairs[..., 1, :], pairs[..., 0, :] - pairs[..., 1, :]), -2)
            y, half = y.reshape(len(x), odd, -1), half * 2
        mixed = np.einsum("ab,rbk->rak", self.small, y) if odd > 1 else y * self.small[0, 0]
        turned: Doubles = mixed.reshape(len(x), n) / np.sqrt(n // odd)
        return turned


class TurnedWeights:
    """The `Weights` of the turned model: norms are ones, embedding and head are two tensors.

    Attributes:
        files: the source's, where it has files.
    """

    def __init__(self, source: Weights, seed: int) -> None:
        self.spec: ModelSpec = replace(source.spec, tied=False)
        self.files: tuple[Path, ...] = getattr(source, "files", ())
        self._source = source
        self._tensors = {t.name: t for t in tensors(self.spec)}
        self._stream = Rotation.random(self.spec.hidden_size, np.random.default_rng([seed, 0]))
        self._seed = seed

    def names(self) -> Sequence[str]:
        return tuple(self._tensors)

    def tokenizer_files(self) -> dict[str, Path | bytes]:
        return self._source.tokenizer_files()

    def load(self, name: str) -> Floats:
        """One tensor, turned, float32.

        Raises:
            EdgeqError: no such tensor, or the source can't give it.
        """
        t = self._tensors.get(name)
        if t is None:
            raise EdgeqError(f"the model has no tensor {name!r}", where=self.spec.name)
        if t.role in ("embed", "head"):
            return self.load_rows(name, slice(0, t.shape[0]))
        layer, _, part = name.rpartition(".")
        if part in ("attn_norm", "mlp_norm", "final_norm"):
            return np.full(t.shape, 1 - self.spec.norm_offset, np.float32)
        values = self._read(name)
        if part in ("v", "v_bias", "o"):
            values = self._heads(t.layer or 0, part, values)
        if part in READERS:
            return _by_rows(self._stream, values * self._norm(f"{layer}.{READERS[part]}"))
        if part in WRITERS:
            return np.ascontiguousarray(_by_rows(self._stream, values.T).T)
        if part in ("o_bias", "down_bias"):
            turned: Floats = _by_rows(self._stream, values[None, :])[0]
            return turned
        return values

    def load_rows(self, name: str, rows: slice) -> Floats:
        """`load(name)[rows]`, without the rest for the embedding and the head."""
        if name not in ("embed", "head"):
            return self.load(name)[rows]
        stored = "embed" if name == "embed" or self._source.spec.tied else "head"
        some = getattr(self._source, "load_rows", None)
        values: Floats = dense(self._source.load(stored))[rows] if some is None else some(stored, rows)
        if name == "head":
            values = values * self._norm("final_norm")
        return _by_rows(self._stream, values)

    def _read(self, name: str) -> Floats:
        return dense(self._source.load(name))

    def _norm(self, name: str) -> Floats:
        """What the norm multiplies each channel with."""
        return self._read(name) + np.float32(self.spec.norm_offset)

    def _heads(self, layer: int, part: str, values: Floats) -> Floats:
        """R2 on the values' rows (and bias) of each key/value head, and on the columns of `o` that read them."""
        a = self.spec.layers[layer].mixer
        assert isinstance(a, Attention)
        out = np.array(values.T if part == "v" else np.atleast_2d(values))  # channels last
        repeat = a.heads // a.kv_heads if part == "o" else 1
        for h in range(a.kv_heads):
            turn = Rotation.random(a.head_dim, np.random.default_rng([self._seed, 1, layer, h]))
            for r in range(repeat):
                at = (h * repeat + r) * a.head_dim
                out[:, at : at + a.head_dim] = _by_rows(turn, out[:, at : at + a.head_dim])
        return np.ascontiguousarray(out.T) if part == "v" else out.reshape(values.shape)


def _by_rows(rotation: Rotation, values: Floats) -> Floats:
    """Every row turned, float32, in parts that bound the float64 memory."""
    out = np.empty(values.shape, np.float32)
    step = max(1, CHUNK // values.shape[1])
    for a in range(0, len(values), step):
        out[a : a + step] = rotation.rows(values[a : a + step].astype(np.float64))
    return out
