"""A GGUF file of another maker, described as an artifact: its tokenizer and facts in a folder of the cache.

The file stays where it is; the folder names it. It is made anew when the file changes.
"""

from __future__ import annotations

import hashlib
from dataclasses import replace
from pathlib import Path

from edgeq.artifact import MANIFEST, Artifact, read_artifact
from edgeq.errors import EdgeqError
from edgeq.exporters.folder import manifest, rope_switch, write_tokenizer
from edgeq.exporters.gguf.storable import FLOATS
from edgeq.files import new_folder, write_json
from edgeq.model.gguf_file import GgufFile
from edgeq.model.weights import open_source
from edgeq.store import cache_home


def adopt(file: Path) -> Artifact:
    """The file as an artifact of the llamacpp runtime.

    Raises:
        EdgeqError: the file is damaged, of an architecture edgeq does not know, or its tokenizer can't be read.
    """
    file = file.resolve()
    place = cache_home() / "gguf" / _key(file)
    if (place / MANIFEST).is_file():
        try:
            return read_artifact(place)
        except EdgeqError:  # a damaged cache is made again
            pass
    source = open_source(file)
    found, spec = GgufFile.open(file), source.spec
    rounded = any(t.type not in FLOATS for t in found.tensors.values())
    options = {"file": str(file), "activation_bits": 8 if rounded else 32}
    with new_folder(place, force=True) as folder:
        write_tokenizer(source.tokenizer_files(), folder)
        facts = rope_switch(spec, spec.max_positions)
        made = manifest(source, folder, runtime="llamacpp", context=spec.max_positions, options=options, facts=facts)
        # The file's size, so that a truncated one is noticed; its checksum would mean reading all of it.
        files = {str(file): {"bytes": file.stat().st_size}, **made.files}
        made = replace(made, scheme=f"gguf-{spec.source_dtype.lower()}" if rounded else spec.source_dtype, files=files)
        write_json(folder / MANIFEST, made.to_json())
    return replace(made, path=place)


def _key(file: Path) -> str:
    """Changes with the file, as far as its place, size and time tell."""
    stat = file.stat()
    return hashlib.sha256(f"{file} {stat.st_size} {stat.st_mtime_ns}".encode()).hexdigest()[:32]
