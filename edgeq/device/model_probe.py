"""Time a runtime on whole small models: the basis of expected speeds where single kernels can't be called.

edgeq exports random weights of three shapes, opens them as an application does and times its sessions. `WIDE` spends
its time in matrices, `NARROW` as much between them, `SHALLOW` is cheap enough to be given a long prompt. Their times
are taken apart:

- `decode-TYPE`: weights/s of matrices stored as TYPE, one token, beyond the last cache.
- `layer`: seconds that a block takes beside its weights and its cached tokens: starts of nodes, threads that wait for
  each other, norms, activations. From `NARROW` and `WIDE` on the first type together.
- `attention`: multiply-adds/s over the cache (2 * heads * head_dim for each cached token), one token.
- `prefill-TYPE`: FLOP/s that one more token of a prompt takes; `chunk-TYPE`: weights/s of what is done once for all
  tokens that are computed together; `narrow-TYPE`: as `prefill-TYPE`, of `NARROW`.
- `attention-prefill`: multiply-adds/s over the tokens seen before, of a prompt.

`edgeq.estimate.whole` puts them together again.
"""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from edgeq import registry
from edgeq.device.cpu import last_cache_bytes, probe_cpu
from edgeq.device.load import today
from edgeq.device.probe_model import VOCAB, ProbeModel, Shape, grid_named, tokenizer
from edgeq.device.spec import Figure, KernelRate
from edgeq.scheme import Grid

SECONDS = 15.0  # after which no further type is begun
_LEAST, _MOST = 48 << 20, 160 << 20  # bytes of a model's weights
_MOMENT = 0.03  # seconds that a prompt is repeated for in a round
_BETWEEN = 0.5  # most of WIDE's time that can go to what is between its matrices: more is a disturbed measurement
WIDE = Shape(hidden=1536, mlp=4096, heads=24, kv_heads=8, layers=1)
NARROW = Shape(hidden=512, mlp=1536, heads=8, kv_heads=2, layers=1)
SHALLOW = replace(NARROW, layers=4)


@dataclass(frozen=True, slots=True)
class Work:
    """How long the models are worked with. Lengths in tokens.

    Attributes:
        few: tokens before those that are decoded, and the shortest prompt.
        more: a prompt that is computed at once.
        many: tokens before those that are decoded where attention is to show, of whole passes of the runtimes' sessions
            (512) and their double, so that two prompts differ by nothing but their attention.
        tokens: decoded each time.
        repeats: rounds, one more in the shapes of the first type.
        weight_bytes: of a model, None: what the last cache does not hold.
    """

    few: int = 32
    more: int = 128
    many: int = 2048
    tokens: int = 12
    repeats: int = 3
    weight_bytes: int | None = None


@dataclass(slots=True)
class Times:
    """Usual seconds, of one decoded token and of a whole prompt, by tokens before it and its tokens."""

    shape: Shape
    decode: dict[int, float] = field(default_factory=dict)
    prefill: dict[int, float] = field(default_factory=dict)
    spread: dict[str, float] = field(default_factory=dict)  # half range over median, of `decode` and `prefill`


def probe_models(
    runtime: Any,
    exporter: str,
    target: str,
    kinds: Sequence[str],
    *,
    vocabulary: bool = False,
    work: Work | None = None,
) -> list[KernelRate]:
    """The rates of a runtime on this machine, all physical cores working.

    Args:
        exporter: which writes for it.
        target: for the record, `openvino/cpu`.
        kinds: the types of matrices, as `probe_model.grid_named` knows them. The first one is timed in every shape, the
            second (of embeddings and heads) in `WIDE`, the others too as long as there is time.
        vocabulary: the exporter's file needs the tokenizer. It lies beside the others', which spares them the seconds
            that converting it would take.

    Raises:
        EdgeqError: the exporter's packages are missing.
    """
    bench, (first, *others) = _Bench(runtime, exporter, work or Work(), vocabulary), kinds
    end = time.perf_counter() + SECONDS
    found = taken_apart(first, *bench.base(grid_named(first)))
    for i, name in enumerate(others):
        if i == 0 or time.perf_counter() < end:
            found |= of_type(name, bench.wide(grid_named(name)), found)
    return [KernelRate(target, name, figure) for name, figure in found.items()]


class _Bench:
    """Makes models and times them."""

    def __init__(self, runtime: Any, exporter: str, work: Work, vocabulary: bool) -> None:
        self._runtime, self._work, self._vocabulary = runtime, work, vocabulary
        self._exporter = registry.exporter(exporter)
        self._bytes = work.weight_bytes or min(max(2 * last_cache_bytes(probe_cpu()), _LEAST), _MOST)

    def base(self, grid: Grid) -> tuple[Times, Times, Times]:
        """Of `WIDE`, `NARROW` and `SHALLOW`, in turns: what slows the machine for a while then slows all of them."""
        shapes = (self._filled(WIDE, grid.bits + 0.5), self._filled(NARROW, (grid.bits + 0.5) / 0.8), SHALLOW)
        with ExitStack() as stack:
            runs = [Run(stack.enter_context(self._opened(shape, grid)), shape, self._work) for shape in shapes]
            for _ in range(self._work.repeats + 1):
                for run in runs:
                    run.round()
            for _ in range(self._work.repeats):
                runs[-1].long_round()
            wide, narrow, shallow = (run.times() for run in runs)
        return wide, narrow, shallow

    def wide(self, grid: Grid) -> Times:
        shape = self._filled(WIDE, grid.bits + 0.5)
        with self._opened(shape, grid) as session:
            run = Run(session, shape, self._work)
            for _ in range(self._work.repeats):
                run.round()
        return run.times()

    def _filled(self, shape: Shape, bits: float) -> Shape:
        """So many layers that no cache holds them."""
        return replace(shape, layers=max(1, round(self._bytes * 8 / bits / shape.layer_weights)))

    @contextmanager
    def _opened(self, shape: Shape, grid: Grid) -> Iterator[Any]:
        """A session of the runtime over a model whose files are gone when it ends."""
        with tempfile.TemporaryDirectory(prefix="edgeq-probe-") as folder:
            model = ProbeModel(shape, grid, vocabulary=self._vocabulary)
            artifact = self._exporter.export(model, Path(folder) / "model")
            if not self._vocabulary:
                (artifact.path / "tokenizer.json").write_bytes(tokenizer())
            with closing(self._runtime.open(artifact)) as session:
                yield session


class Run:
    """One model that is timed, round by round, after a warm-up."""

    def __init__(self, session: Any, shape: Shape, work: Work) -> None:
        self._session, self._shape, self._work = session, shape, work
        self._decode: dict[int, list[float]] = {}
        self._prefill: dict[int, list[float]] = {}
        self._answer(work.few, work.tokens)

    def round(self) -> None:
        """A short and a longer prompt, several times if that takes no time, and tokens after the short one."""
        for length in (self._work.few, self._work.more):
            self._read(length)
        self._write(self._work.few)

    def long_round(self) -> None:
        """Prompts at which attention shows, and tokens after the longer one."""
        self._read(self._work.many // 2)
        self._read(self._work.many)
        self._write(self._work.many)

    def times(self) -> Times:
        """Of all rounds."""
        decode = {n: _usual(runs) for n, runs in self._decode.items()}
        prefill = {n: _usual(runs) for n, runs in self._prefill.items()}
        spread = {"decode": _spread(self._decode.values()), "prefill": _spread(self._prefill.values())}
        return Times(self._shape, decode, prefill, spread)

    def _read(self, length: int) -> None:
        runs, end = self._prefill.setdefault(length, []), time.perf_counter() + _MOMENT
        while True:
            runs.append(self._answer(length, 1, seed=len(runs)).prefill_s)
            if time.perf_counter() > end:
                return

    def _write(self, length: int) -> None:
        """Twice, since a moment's disturbance then spoils one of them."""
        self._answer(length, 1)
        runs = self._decode.setdefault(length + self._work.tokens // 2, [])
        for _ in range(2):
            stats = self._answer(length, self._work.tokens, reuse=True)
            runs.append(stats.decode_s / max(1, stats.new_tokens - 1))

    def _answer(self, length: int, new: int, *, seed: int = 0, reuse: bool = False) -> Any:
        """The statistics of one greedy answer; `reuse`: the prompt is in the cache already."""
        ids = [(i * 2_654_435_761 + (seed + 1) * 40_503) % VOCAB for i in range(length)]
        for _ in self._session.stream(ids, max_tokens=new, temperature=0.0, reuse=reuse):
            pass
        return self._session.stats


def _usual(runs: Sequence[float]) -> float:
    """The lower quartile: other work only ever slows a run, and threads that wait for each other by far, so that on a
    machine that does a little else a median of few runs is not the runtime's."""
    return sorted(runs)[len(runs) // 4]


def _spread(runs: Iterable[Sequence[float]]) -> float:
    """The largest half range over the median."""
    return max((max(r) - min(r)) / 2 / statistics.median(r) for r in runs if statistics.median(r))


def taken_apart(name: str, wide: Times, narrow: Times, shallow: Times) -> dict[str, Figure]:
    """The rates of the first type and of all that is not matrices; see this module."""
    found = _attention(shallow)
    rate = found["attention"].value
    t_wide, t_narrow = (_without_attention(t, rate) for t in (wide, narrow))
    a, b = wide.shape, narrow.shape
    # Two equations, seconds = weights * per weight + layers * per layer; their determinant is never 0: a block of
    # NARROW has fewer weights.
    layer = (t_narrow * a.weights - t_wide * b.weights) / (b.layers * a.weights - a.layers * b.weights)
    layer = min(layer, _BETWEEN * t_wide / a.layers)
    found["layer"] = _figure(max(layer, 1e-6), "s", narrow.spread["decode"])
    found |= of_type(name, wide, found)
    slope, _ = _prefill(narrow, found["attention-prefill"].value)
    found[f"narrow-{name}"] = _figure(2 * b.weights / slope, "FLOP/s", narrow.spread["prefill"])
    return found


def of_type(name: str, wide: Times, known: Mapping[str, Figure]) -> dict[str, Figure]:
    """The rates of one type of matrices, where `layer` and the attentions are known."""
    shape = wide.shape
    whole = _without_attention(wide, known["attention"].value)
    matrices = max(whole - shape.layers * known["layer"].value, (1 - _BETWEEN) * whole)
    slope, once = _prefill(wide, known["attention-prefill"].value)
    found = {
        f"decode-{name}": _figure(shape.weights / matrices, "weights/s", wide.spread["decode"]),
        f"prefill-{name}": _figure(2 * shape.weights / slope, "FLOP/s", wide.spread["prefill"]),
    }
    if once > 0:
        found[f"chunk-{name}"] = _figure(shape.weights / once, "weights/s", wide.spread["prefill"])
    return found


def _attention(shallow: Times) -> dict[str, Figure]:
    """Of the differences that tokens before make."""
    few, many = min(shallow.decode), max(shallow.decode)
    step = max(shallow.decode[many] - shallow.decode[few], 0.01 * shallow.decode[few])
    one = shallow.shape.attention
    found = {"attention": _figure(one * (many - few) / step, "MAC/s", shallow.spread["decode"])}
    # Of two prompts, one twice as long: what it takes beyond twice the time. A prompt of n tokens sees n^2 / 2.
    half, long = sorted(shallow.prefill)[-2:]
    seconds = max(shallow.prefill[long] - long / half * shallow.prefill[half], 0.01 * shallow.prefill[long])
    squares = long * (long - half) / 2
    found["attention-prefill"] = _figure(one * squares / seconds, "MAC/s", shallow.spread["prefill"])
    return found


def _without_attention(times: Times, rate: float) -> float:
    """Seconds of a token with nothing before it."""
    (at, seconds), *_ = times.decode.items()
    return max(seconds - times.shape.attention * at / rate, 0.2 * seconds)


def _prefill(times: Times, rate: float) -> tuple[float, float]:
    """Seconds of one more token of a prompt, and of what is done once for all of them, attention left out."""
    few, more = min(times.prefill), max(times.prefill)
    one = times.shape.attention / rate
    short, long = (max(times.prefill[n] - one * n * n / 2, 0.2 * times.prefill[n]) for n in (few, more))
    slope = max((long - short) / (more - few), 0.2 * long / more)
    return slope, short - few * slope


def _figure(value: float, unit: str, spread: float) -> Figure:
    return Figure(value, unit, "measured", "small models", round(spread, 3), today())
