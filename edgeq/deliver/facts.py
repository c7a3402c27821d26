"""What a snippet has to know of an artifact: its paths, whether it talks or continues a text, what to ask it."""

from __future__ import annotations

import json
import re
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from edgeq.artifact import Artifact
from edgeq.errors import EdgeqError

QUESTION = "Why is the sky blue?"
BEGINNING = "The capital of France is"
CONTEXT = 2048  # tokens that a snippet makes room for
ANSWER = 512
GGUF = "model.gguf"


@dataclass(frozen=True, slots=True)
class Facts:
    """Attributes:
    kind: `onnxruntime`, `openvino`, `llamacpp`, or the layout of a Hugging Face folder (`gptq`).
    place: what is handed over, absolute: a folder, or the one file of another maker's GGUF.
    file: the GGUF; None: of another kind.
    modelfile: Ollama's, where there is one.
    text: it has a tokenizer.
    chat: it has a chat template.
    context: the most tokens it takes.
    device: OpenVINO's name of the device it is meant for.
    files: names in the folder.
    """

    kind: str
    place: Path
    name: str
    file: Path | None
    modelfile: Path | None
    text: bool
    chat: bool
    context: int
    device: str
    files: frozenset[str]

    @property
    def prompt(self) -> str:
        return QUESTION if self.chat else BEGINNING

    @property
    def tag(self) -> str:
        """A name that Ollama and servers take: `smollm2-135m-gptq-int4-g32`."""
        return re.sub(r"[^a-z0-9._-]+", "-", self.name.lower()).strip("-._") or "model"


def facts_of(artifact: Artifact) -> Facts:
    """From the manifest and the names of the files; nothing large is read."""
    own = artifact.path.absolute()
    given = artifact.options.get("file")  # of another maker: `own` is a folder of edgeq's cache
    file = Path(str(given)) if given else own / GGUF if artifact.runtime == "llamacpp" else None
    place = file if given and file is not None else own
    modelfile = own / "Modelfile"
    layout = artifact.model.get("format") if artifact.runtime == "transformers" else None
    text, chat = _readable(own)
    return Facts(
        kind=str(layout or artifact.runtime),
        place=place,
        name=place.stem if given else place.name,
        file=file,
        modelfile=modelfile if modelfile.is_file() else None,
        text=text,
        chat=chat,
        context=int(artifact.model.get("max_positions", CONTEXT)),
        device=str(artifact.options.get("device", "cpu")).upper(),
        files=frozenset(artifact.files),
    )


def rendered(artifact: Artifact, facts: Facts) -> str:
    """The prompt as the model's chat template writes it; as it is where there is none, or no package to render it."""
    if facts.chat:
        from edgeq.registry import runtime

        with suppress(EdgeqError, ImportError):
            tokenizer = runtime("torch").tokenizer(artifact.path)  # type: ignore[attr-defined]  # torch stays out
            return str(tokenizer.render([{"role": "user", "content": facts.prompt}]))
    return facts.prompt


def _readable(folder: Path) -> tuple[bool, bool]:
    """Whether there is a tokenizer, and whether there is a chat template."""
    return (folder / "tokenizer.json").is_file(), _talks(folder)


def _talks(folder: Path) -> bool:
    if (folder / "chat_template.jinja").is_file():
        return True
    try:
        return bool(json.loads((folder / "tokenizer_config.json").read_bytes()).get("chat_template"))
    except (OSError, ValueError, AttributeError, RecursionError):
        return False
