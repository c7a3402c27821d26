"""What every row of the quality benchmark needs: commands timed and watched, results kept, the text cut, the score."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent


@dataclass(frozen=True, slots=True)
class Spent:
    """A finished command: wall seconds with its start, those of processors, highest resident bytes, what it printed."""

    seconds: float
    cpu_seconds: float
    peak_bytes: int
    output: str
    errors: str

    @property
    def answer(self) -> dict[str, Any]:
        """The JSON object on its last line."""
        found: dict[str, Any] = json.loads(self.output.strip().splitlines()[-1])
        return found


def spend(command: Sequence[str | Path], threads: int, *, cwd: Path | None = None) -> Spent:
    """Run a command to its end. This process stays small, for a child's peak begins with its parent's.

    Raises:
        RuntimeError: it failed; with the last line it printed.
    """
    env = os.environ | {"OMP_NUM_THREADS": str(threads), "TOKENIZERS_PARALLELISM": "false", "HF_HUB_OFFLINE": "1"}
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        start = time.perf_counter()
        process = subprocess.Popen([str(c) for c in command], stdout=out, stderr=err, env=env, cwd=cwd)
        try:
            _, status, usage = os.wait4(process.pid, 0)
        except BaseException:
            process.kill()
            raise
        seconds = time.perf_counter() - start
        process.returncode = os.waitstatus_to_exitcode(status)
        texts = []
        for stream in (out, err):
            stream.seek(0)
            texts.append(stream.read().decode("utf-8", "replace"))
    if process.returncode:
        lines = [line.strip() for line in "\n".join(texts).splitlines() if line.strip()]
        said = next((line for line in reversed(lines) if "rror" in line), lines[-1] if lines else "")
        raise RuntimeError(f"{Path(str(command[0])).name} ended with {process.returncode}: {said[:300]}")
    return Spent(seconds, usage.ru_utime + usage.ru_stime, usage.ru_maxrss * 1024, *texts)


@dataclass(frozen=True, slots=True)
class Bench:
    """What is measured on, with what, and where everything made on the way is kept.

    Attributes:
        tools: folder of llama.cpp's programs, and the interpreters of the environments of other peers, by name.
        samples, seqlen: of calibration, for llm-compressor and edgeq alike.
        tuning_samples, tuning_seqlen, iters: likewise for auto-round and edgeq's method of that name.
    """

    model: Path
    text: Path
    calib: Path
    work: Path
    tools: dict[str, Path]
    chunks: int = 16
    length: int = 512
    samples: int = 128
    seqlen: int = 512
    tuning_samples: int = 128
    tuning_seqlen: int = 512
    iters: int = 200
    threads: int = 2
    seed: int = 0
    keep: bool = False

    @property
    def identity(self) -> dict[str, Any]:
        """What a result depends on beside its row."""
        shards = sorted(self.model.glob("*.safetensors"))
        return {
            "model": [self.model.name, _digest(self.model / "config.json"), [f.stat().st_size for f in shards]],
            "text": _digest(self.text),
            "calib": _digest(self.calib),
            "chunks": [self.chunks, self.length],
            "threads": self.threads,
        }

    def tool(self, name: str) -> Path:
        """Raises a RuntimeError where the peer was not given."""
        if name not in self.tools:
            raise RuntimeError(f"no --{name} given")
        return self.tools[name]

    def once(self, name: str, request: Any) -> Path:
        """A file of `work` named after all that it depends on; who asks makes it if it is not there."""
        key = hashlib.sha256(json.dumps([self.identity, request], sort_keys=True).encode()).hexdigest()[:12]
        stem, dot, suffix = name.partition(".")
        return self.work / f"{stem}-{key}{dot}{suffix}"

    def ids(self, text: Path, count: int, length: int) -> Path:
        """JSON of the first `count` chunks of a text, for programs that take tokens."""
        file = self.once("ids.json", [_digest(text), count, length])
        if not file.exists():
            sys.path.insert(0, str(HERE))
            from quality_harness import cut_text

            file.write_text(json.dumps(cut_text(self.model, text, count, length)[1]))
        return file

    def score(self, engine: str, candidate: Path) -> dict[str, Any]:
        """Divergence of a candidate from the float model (see quality_harness)."""
        request = {
            "model": str(self.model),
            "text": str(self.text),
            "chunks": self.chunks,
            "length": self.length,
            "reference": str(self.once("reference.npy", "float32")),
            "engine": engine,
            "candidate": str(candidate),
        }
        return spend([sys.executable, HERE / "quality_harness.py", json.dumps(request)], self.threads).answer

    def parameters(self) -> tuple[int, int]:
        """Weights of the model, and of them those of linear layers."""
        from edgeq.model.read import read_model
        from edgeq.model.tensors import parameters, tensors

        spec = read_model(str(self.model))
        return parameters(spec), sum(t.numel for t in tensors(spec) if t.linear)


def _digest(file: Path) -> str:
    return hashlib.sha256(file.read_bytes()).hexdigest()[:16]
