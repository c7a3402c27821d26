"""Calibration text from a data set of the Hugging Face hub: `NAME[:split][:field]`, JSON lines or parquet.

Files are read as they are: no code of a data set's runs. The hub offers every public data set as parquet in the branch
`refs/convert/parquet` (https://huggingface.co/docs/dataset-viewer/parquet), where the data set itself has neither.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from edgeq.errors import EdgeqError
from edgeq.quantize.calibrate_text import FIELDS, ReadText, Shape, document, packed
from edgeq.registry import Progress

CONVERTED = "refs/convert/parquet"
OFFLINE = "Go online, give a file, or leave it to the model: --calibration self"


def hub_text(
    wanted: str, tokenizer: Any, shape: Shape, progress: Progress, seed: int, ends: list[int]
) -> tuple[ReadText, str]:
    """Sequences of a data set's documents, and which file they are from.

    Args:
        wanted: `NAME[:split][:field]`; the split is `train` unless said otherwise, the field the first of `text`,
            `content` and `messages`. A name of three parts ends in a configuration (`Salesforce/wikitext/...`).

    Raises:
        EdgeqError: no such data set, split or field, no network, or pyarrow is missing.
    """
    name, _, rest = wanted.partition(":")
    split, _, field = rest.partition(":")
    owner = name.split("/")
    repository, configuration = "/".join(owner[:2]), "/".join(owner[2:])
    file, revision = _find(repository, configuration, split or "train")
    path = _download(repository, file, revision)
    rows = _parquet(path, field, seed) if file.endswith(".parquet") else _lines(path, seed)
    where = f"{repository}, {file}"
    documents = (document(row, where, field or None) for row in rows)
    tokens, used = packed(documents, tokenizer, shape, progress, ends=ends)
    if not len(tokens):
        raise EdgeqError("the data set is too short for one calibration sequence", where=where)
    return ReadText(tokens, f"{used:,} documents"), where


def _find(repository: str, configuration: str, split: str) -> tuple[str, str | None]:
    """The first readable file of a split, and the branch it lies in."""
    seen: list[str] = []
    for revision in (None, CONVERTED):
        files = [f for f in _listed(repository, revision) if f.endswith((".jsonl", ".parquet"))]
        seen += files
        here = [f for f in files if configuration in f and split in f.replace("\\", "/").lower()]
        if here:
            return sorted(here)[0], revision
    if not seen:
        raise EdgeqError(f"the data set {repository} has no JSON lines and no parquet", hint="Give a file of yours")
    names = ", ".join(sorted({Path(f).parent.name or Path(f).name for f in seen})[:6])
    raise EdgeqError(f"the data set {repository} has no split {split!r}", hint=f"There is: {names}")


def _listed(repository: str, revision: str | None) -> list[str]:
    import huggingface_hub
    from huggingface_hub import errors as hub

    from edgeq.model.hub import quiet, reachable

    quiet()
    if not reachable():
        raise _unreachable(repository)
    try:
        return list(huggingface_hub.list_repo_files(repository, repo_type="dataset", revision=revision))
    except hub.RevisionNotFoundError:
        return []
    except hub.GatedRepoError as error:
        hint = f"Accept its terms at https://huggingface.co/datasets/{repository}, then run `hf auth login`"
        raise EdgeqError(f"the data set {repository} is gated", hint=hint) from error
    except (hub.RepositoryNotFoundError, hub.HFValidationError) as error:
        raise EdgeqError(f"the hub has no data set {repository}", hint="Check the name") from error
    except (hub.HfHubHTTPError, OSError) as error:
        raise _unreachable(repository) from error


def _download(repository: str, file: str, revision: str | None) -> Path:
    import huggingface_hub
    from huggingface_hub import errors as hub

    try:
        found = huggingface_hub.hf_hub_download(repository, file, repo_type="dataset", revision=revision)
    except (hub.HfHubHTTPError, hub.LocalEntryNotFoundError, OSError) as error:
        raise _unreachable(repository) from error
    return Path(found)


def _unreachable(repository: str) -> EdgeqError:
    return EdgeqError(f"the hub can't be reached for the data set {repository}", hint=OFFLINE)


def _lines(path: Path, seed: int) -> Iterator[str]:
    try:
        lines = [line for line in path.read_text("utf-8").splitlines() if line.strip()]
    except UnicodeDecodeError as error:
        raise EdgeqError("the data set's file is not UTF-8", where=path) from error
    for i in np.random.default_rng(seed).permutation(len(lines)):
        yield lines[i]


def _parquet(path: Path, field: str, seed: int) -> Iterator[dict[str, Any]]:
    """Rows, the row groups in random order: a group is what parquet reads at once."""
    try:
        from pyarrow import ArrowException
        from pyarrow.parquet import ParquetFile
    except ImportError as error:
        hint = "pip install pyarrow, or give a .txt or .jsonl file"
        raise EdgeqError("reading this data set needs a package that is not installed: pyarrow", hint=hint) from error
    try:
        file = ParquetFile(path)
        names = set(file.schema_arrow.names)
        columns = [n for n in ((field,) if field else FIELDS) if n in names]
        if not columns:
            hint = f"Name one: {', '.join(sorted(names)[:8])}"
            raise EdgeqError("the data set has no such text field", where=path.name, hint=hint)
        for group in np.random.default_rng(seed).permutation(file.num_row_groups):
            for batch in file.iter_batches(64, row_groups=[int(group)], columns=columns[:1]):
                yield from batch.to_pylist()
    except (ArrowException, OSError) as error:
        raise EdgeqError("the data set's file is damaged", where=path, hint="Fetch it again") from error
