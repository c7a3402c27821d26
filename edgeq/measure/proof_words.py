"""What an export's proof found, in words: from the result of a job, which is plain JSON."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from edgeq.amounts import amount
from edgeq.artifact import Artifact
from edgeq.jsonable import from_json
from edgeq.measure.verify import Verification

MOST_FILES = 12  # that are listed one by one


def proof_rows(result: Mapping[str, Any]) -> list[tuple[str, str]]:
    """What was made and how it was checked: rows of a name and what is said of it.

    Args:
        result: of a job of the kind `export`.
    """
    rows = [
        ("artifact", str(result["artifact"])),
        ("runtime", str(result["runtime"])),
        ("size", amount(result["bytes"])),
    ]
    if result.get("tensors"):
        rows.append(("read back", f"{result['tensors']:,} tensors, each number as the checkpoint has it"))
    if result.get("verification"):
        rows.append(("verified", _verified(from_json(Verification, result["verification"], "the job"))))
    elif result.get("unchecked"):
        rows.append(("logits", f"not compared: {result['unchecked']}"))
    rows += [("note", str(note)) for note in result.get("notes") or ()]
    return rows


def artifact_rows(made: Artifact) -> list[tuple[str, str]]:
    """The same of an artifact that lies there, from its manifest."""
    found = made.verify
    known = {"artifact": made.path, "runtime": made.runtime, "bytes": made.total_bytes, "notes": made.notes}
    known["tensors"] = found.get("read_back")
    known["verification"] = {k: v for k, v in found.items() if k != "read_back"} if "random" in found else None
    known["unchecked"] = "" if found else "`edgeq verify` does it"
    return proof_rows(known)


def file_rows(made: Artifact) -> list[tuple[str, str]]:
    """What an artifact's folder holds, the largest file first: each with its size, and all of them together."""
    sizes = sorted(((int(f["bytes"]), name) for name, f in made.files.items()), key=lambda item: (-item[0], item[1]))
    rows = [(name, amount(size)) for size, name in sizes[:MOST_FILES]]
    if len(sizes) > MOST_FILES:
        rows.append((f"{len(sizes) - MOST_FILES} more", amount(sum(size for size, _ in sizes[MOST_FILES:]))))
    return [*rows, ("all together", amount(made.total_bytes))] if len(sizes) > 1 else rows


def _verified(found: Verification) -> str:
    judged = found.text or found.random
    on = f"{judged.tokens:,} tokens of {'text' if found.text else 'noise'}"
    return (
        f"on {on} its likeliest word is the checkpoint's {judged.top1:.1%} of the time; "
        f"KL divergence {judged.mean_kl:.2g} nats, limit {found.limits.mean_kl:g}"
    )
