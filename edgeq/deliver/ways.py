"""The ways to load an artifact, each with what has to be installed and a program that is filled in and runs.

The programs are the files in `snippets`: `ID.txt`, and `ID-chat.txt` for models with a chat template where that makes a
difference. `<<PATH>>` and its like stand for literals of the program's language.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from importlib.resources import files

from edgeq.artifact import Artifact
from edgeq.deliver.facts import ANSWER, CONTEXT, Facts, facts_of, rendered
from edgeq.deliver.quoting import QUOTES

_PLACE = re.compile(r"<<([A-Z]+)>>")
_GENAI = "onnxruntime-genai 0.8 to 0.18"
_OPENVINO = "openvino-genai 2025.3 to 2026.4"
_LLAMACPP = "llama.cpp from build b4600 (February 2025) to 0.6 (October 2026)"


@dataclass(frozen=True, slots=True)
class Way:
    """Attributes:
    language: of the program, as pygments names it.
    install: a line to type, or what to get and where.
    versions: of what is installed.
    note: what has to be done besides, or known.
    """

    id: str
    title: str
    language: str
    install: str
    versions: str
    note: str
    code: str


@dataclass(frozen=True, slots=True)
class _Kind:
    id: str
    title: str
    language: str
    install: str
    versions: str
    note: str
    works: Callable[[Facts], bool]


def ways_of(artifact: Artifact) -> tuple[Way, ...]:
    """Those that work with this artifact, edgeq's own first; none without a tokenizer."""
    facts = facts_of(artifact)
    kinds = [kind for kind in _KINDS if kind.works(facts)]
    prompt = rendered(artifact, facts)
    return tuple(_filled(kind, facts, prompt) for kind in kinds)


def _filled(kind: _Kind, facts: Facts, prompt: str) -> Way:
    program, notes = _program(kind.id, facts.chat), [kind.note] if kind.note else []
    if facts.chat and "<<RENDERED>>" in program:
        notes.append("The prompt is as the model's chat template writes it.")
    code = fill(program, kind.language, values(facts, prompt))
    install = kind.install or own_install(facts.kind)
    return Way(kind.id, kind.title, kind.language, install, kind.versions, " ".join(notes), code)


def own_install(kind: str) -> str:
    """What edgeq needs to run an artifact of this kind, by its own metadata; none of it is torch."""
    from edgeq.doctor import version_range

    runs = {"llamacpp": "xllamacpp"}.get(kind, kind)
    wanted = (f'"{name}{version_range(name)}"' for name in (runs, "tokenizers", "jinja2"))
    return f"pip install edgeq {' '.join(wanted)}"


def values(facts: Facts, prompt: str) -> dict[str, str | int]:
    """What the places of a program stand for; numbers are written as they are.

    Args:
        prompt: as the chat template writes it.
    """
    context = min(CONTEXT, facts.context)
    asked = {"messages": [{"role": "user", "content": facts.prompt}]} if facts.chat else {"prompt": facts.prompt}
    return {
        "PATH": str(facts.place),
        "NAME": facts.name,
        "FILE": str(facts.file),
        "STEM": "" if facts.file is None else facts.file.stem,
        "MODELFILE": str(facts.modelfile),
        "TAG": facts.tag,
        "PROMPT": facts.prompt,
        "RENDERED": prompt,
        "DEVICE": facts.device,
        "BODY": json.dumps({"model": facts.tag, **asked, "max_tokens": 64}, ensure_ascii=False),
        "ENDPOINT": _Bare(f"v1/{'chat/' if facts.chat else ''}completions"),
        "CONTEXT": context,
        "LENGTH": min(ANSWER, facts.context),
    }


class _Bare(str):
    """Written without quotes."""


def fill(program: str, language: str, values: dict[str, str | int]) -> str:
    """The program with its places filled in; what is filled in is not looked at again."""
    quote = QUOTES[language]

    def literal(found: re.Match[str]) -> str:
        value = values[found[1]]
        return str(value) if isinstance(value, int | _Bare) else quote(value)

    return _PLACE.sub(literal, program)


@lru_cache(maxsize=64)
def _program(name: str, chat: bool) -> str:
    folder = files("edgeq.deliver") / "snippets"
    other = folder / f"{name}-chat.txt"
    return (other if chat and other.is_file() else folder / f"{name}.txt").read_text("utf-8")


def _onnx(facts: Facts) -> bool:
    return facts.kind == "onnxruntime" and facts.text and "genai_config.json" in facts.files


def _openvino(facts: Facts) -> bool:
    return facts.kind == "openvino" and "openvino_tokenizer.xml" in facts.files


def _gguf(facts: Facts) -> bool:
    return facts.kind == "llamacpp"


def _folder(*kinds: str) -> Callable[[Facts], bool]:
    return lambda facts: facts.kind in kinds


def _edgeq(facts: Facts) -> bool:
    return facts.kind in ("onnxruntime", "openvino", "llamacpp") and facts.text


_PHONE = "Copy the folder into the app first."
_HTTP = "It answers in OpenAI's format: any of its clients works too."
_KINDS = (
    _Kind("edgeq", "Python", "python", "", "Python 3.11 to 3.13", "", _edgeq),
    _Kind("genai-python", "onnxruntime-genai", "python", "pip install onnxruntime-genai", _GENAI,
          "Microsoft's generator, without edgeq.", _onnx),
    _Kind("genai-csharp", "C#", "csharp", "dotnet add package Microsoft.ML.OnnxRuntimeGenAI", _GENAI, "", _onnx),
    _Kind("genai-kotlin", "Kotlin", "kotlin",
          "onnxruntime-genai-android-VERSION.aar of github.com/microsoft/onnxruntime-genai/releases, and "
          "com.microsoft.onnxruntime:onnxruntime-android",
          _GENAI, f"Android. {_PHONE}", _onnx),
    _Kind("genai-objc", "iOS", "objective-c",
          "onnxruntime-genai, built by its build.py --ios --build_apple_framework", _GENAI,
          f"Objective-C, which Swift calls through a bridging header. {_PHONE}", _onnx),
    _Kind("openvino-python", "openvino-genai", "python", "pip install openvino-genai", _OPENVINO,
          "Intel's generator, without edgeq; it applies the chat template itself.", _openvino),
    _Kind("openvino-cpp", "C++", "cpp",
          "OpenVINO GenAI's archive; CMake: find_package(OpenVINOGenAI), target_link_libraries(app openvino::genai)",
          f"{_OPENVINO}, C++17", "", _openvino),
    _Kind("llamacpp-cli", "llama.cpp", "bash", "brew install llama.cpp, or a release of github.com/ggml-org/llama.cpp",
          "llama.cpp builds since December 2025", "", _gguf),
    _Kind("llamacpp-server", "Server", "bash", "as for llama.cpp", _LLAMACPP, _HTTP, _gguf),
    _Kind("ollama", "Ollama", "bash", "ollama.com/download", "Ollama 0.5 and later", "",
          lambda f: _gguf(f) and f.modelfile is not None),
    _Kind("ollama-file", "Ollama", "bash", "ollama.com/download", "Ollama 0.5 and later", "",
          lambda f: _gguf(f) and f.modelfile is None),
    _Kind("llamacpp-python", "xllamacpp", "python", "pip install xllamacpp", "xllamacpp 2026.10",
          "llama.cpp in Python, without edgeq.", _gguf),
    _Kind("llamacpp-swift", "Swift", "swift", "llama.xcframework of github.com/ggml-org/llama.cpp/releases", _LLAMACPP,
          "iOS and macOS. Copy the file into the app first.", _gguf),
    _Kind("transformers", "Python", "python", "pip install transformers compressed-tensors",
          "transformers 5.17 and later", "Needs torch; meant for a GPU.", _folder("compressed-tensors")),
    _Kind("transformers", "Python", "python", "pip install transformers gptqmodel",
          "transformers 5 with GPTQModel", "Needs torch; meant for a GPU.", _folder("gptq", "awq")),
    _Kind("vllm", "vLLM", "bash", "pip install vllm", "vLLM 0.8 and later", f"Needs a GPU. {_HTTP}",
          _folder("compressed-tensors", "gptq", "awq")),
    _Kind("sglang", "SGLang", "bash", "pip install sglang", "SGLang 0.4 and later", f"Needs a GPU. {_HTTP}",
          _folder("gptq", "awq")),
)  # fmt: skip
