"""One engine in one process: loads a model, then answers each line of standard input with a timing on standard output.

`python peers.py KIND PATH THREADS CONTEXT OPTIONS`; the context is the most tokens of a request and its answer, the
options are JSON, of edgeq's session. A request is JSON with `prompt` (token ids) and `tokens`; the answer has
`prefill_s`, `decode_s` and `decoded` (tokens after the first). Every engine decodes greedily and does not stop early.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

Answer = dict[str, float]
Engine = Callable[[list[int], int], Answer]
_USUAL = 2048  # tokens of context, unless more are asked for


def edgeq_engine(path: Path, threads: int, context: int, **options: Any) -> Engine:
    import edgeq

    session: Any = edgeq.load(path, threads=threads, context=max(context, _USUAL), **options)

    def run(prompt: list[int], tokens: int) -> Answer:
        spent, made, prefill = 0.0, 0, None
        while made < tokens:  # a model that ends its answer early is asked again, with another first token
            session.reset()
            for _ in session.stream([prompt[0] + made, *prompt[1:]], max_tokens=tokens - made + 1, temperature=0.0):
                pass
            stats = session.stats
            prefill = stats.prefill_s if prefill is None else prefill
            spent, made = spent + stats.decode_s, made + max(1, stats.new_tokens - 1)
        return {"prefill_s": prefill or 0.0, "decode_s": spent, "decoded": made}

    return run


def genai_engine(path: Path, threads: int, context: int) -> Engine:
    import onnxruntime_genai as og

    config = og.Config(str(path))
    config.overlay(json.dumps({"model": {"decoder": {"session_options": {"intra_op_num_threads": threads}}}}))
    model = og.Model(config)
    words = og.Tokenizer(model).create_stream()  # text as it comes, as its own examples and edgeq's session give it

    def run(prompt: list[int], tokens: int) -> Answer:
        params = og.GeneratorParams(model)
        length = len(prompt) + tokens + 1
        params.set_search_options(do_sample=False, min_length=length, max_length=length)
        generator = og.Generator(model, params)
        start = time.perf_counter()
        generator.append_tokens(prompt)
        generator.generate_next_token()
        first = time.perf_counter()
        for _ in range(tokens):
            words.decode(int(generator.get_next_tokens()[0]))
            generator.generate_next_token()
        return {"prefill_s": first - start, "decode_s": time.perf_counter() - first, "decoded": tokens}

    return run


def llamacpp_engine(path: Path, threads: int, context: int) -> Engine:
    import xllamacpp

    params = xllamacpp.CommonParams()
    params.model.path = str(path)
    params.n_ctx, params.n_parallel, params.warmup, params.verbosity = max(context, _USUAL), 1, True, -1
    params.cpuparams.n_threads = params.cpuparams_batch.n_threads = threads
    server = xllamacpp.Server(params)

    def run(prompt: list[int], tokens: int) -> Answer:
        request = {"prompt": prompt, "n_predict": tokens + 1, "temperature": 0.0, "ignore_eos": True}
        answer = server.handle_completions(request | {"cache_prompt": False})
        timings = (json.loads(answer) if isinstance(answer, str) else answer)["timings"]
        made = int(timings["predicted_n"]) - 1
        each = timings["predicted_ms"] / 1000 / max(1, timings["predicted_n"])
        return {"prefill_s": timings["prompt_ms"] / 1000, "decode_s": each * made, "decoded": made}

    return run


def openvino_engine(path: Path, threads: int, context: int) -> Engine:
    import openvino as ov
    import openvino_genai as og

    pipe = og.LLMPipeline(str(path), "CPU", INFERENCE_NUM_THREADS=threads)

    def run(prompt: list[int], tokens: int) -> Answer:
        import numpy as np

        ids = ov.Tensor(np.array([prompt], np.int64))
        inputs = og.TokenizedInputs(ids, ov.Tensor(np.ones((1, len(prompt)), np.int64)))
        done = pipe.generate(inputs, max_new_tokens=tokens + 1, ignore_eos=True, do_sample=False).perf_metrics
        each = done.get_tpot().mean / 1000
        return {"prefill_s": done.get_ttft().mean / 1000, "decode_s": each * tokens, "decoded": tokens}

    return run


ENGINES: dict[str, Callable[..., Engine]] = {
    "edgeq": edgeq_engine,
    "genai": genai_engine,
    "llamacpp": llamacpp_engine,
    "openvino": openvino_engine,
}


def main() -> None:
    kind, path = sys.argv[1], Path(sys.argv[2])
    threads, context, options = int(sys.argv[3]), int(sys.argv[4]), json.loads(sys.argv[5])
    answers = os.fdopen(os.dup(1), "w")  # libraries print to standard output too
    os.dup2(2, 1)
    try:
        engine = ENGINES[kind](path, threads, context, **options)
    except ImportError as error:
        print(json.dumps({"missing": error.name or str(error)}), file=answers, flush=True)
        return
    except Exception as error:
        print(
            json.dumps({"missing": f"{type(error).__name__}: {str(error).splitlines()[0]}"}), file=answers, flush=True
        )
        return
    print(json.dumps({"ready": True}), file=answers, flush=True)
    for line in sys.stdin:
        request = json.loads(line)
        print(json.dumps(engine(request["prompt"], request["tokens"])), file=answers, flush=True)


if __name__ == "__main__":
    main()
