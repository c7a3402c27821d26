"""The weights and tokenizer files of a hub id, through huggingface_hub and its cache."""

from __future__ import annotations

from pathlib import Path

from edgeq.errors import EdgeqError
from edgeq.model.safetensors_file import CONVERT

PATTERNS = ["*.safetensors", "*.safetensors.index.json", "*.json", "*.jinja"]
# Second copies of the same weights in some repositories.
IGNORED = ["original/*", "consolidated*", "onnx/*", "openvino/*"]
TRANSPORTS = {"httpx", "httpx2", "requests", "urllib3"}  # what huggingface_hub has been built on


def snapshot(ref: str, revision: str | None = None) -> Path:
    """The folder of a hub model with its safetensors and tokenizer files, fetched if it is not in the cache.

    Raises:
        EdgeqError: no such model, only pickles, no permission, no network, no room.
    """
    from huggingface_hub import errors as hub
    from huggingface_hub import snapshot_download

    from edgeq.model.hub import quiet, reachable

    quiet()
    try:
        folder = Path(
            snapshot_download(
                ref,
                revision=revision,
                allow_patterns=PATTERNS,
                ignore_patterns=IGNORED,
                local_files_only=not reachable(),
            )
        )
    except hub.GatedRepoError as error:
        hint = f"Accept its terms at https://huggingface.co/{ref}, then run `hf auth login`"
        raise EdgeqError(f"{ref} is gated", hint=hint) from error
    except (hub.RepositoryNotFoundError, hub.RevisionNotFoundError, hub.HFValidationError) as error:
        raise EdgeqError(f"the hub has no model {ref}", hint="Check the name, or run `hf auth login`") from error
    except (hub.LocalEntryNotFoundError, hub.HfHubHTTPError) as error:
        raise _unreachable(ref) from error
    except OSError as error:
        raise EdgeqError(
            f"cannot download {ref}: {error.strerror or error}", hint="Free space and try again"
        ) from error
    except Exception as error:
        if type(error).__module__.partition(".")[0] in TRANSPORTS:
            raise _unreachable(ref) from error
        raise
    if not any(folder.glob("*.safetensors")):
        raise EdgeqError(f"{ref} has no safetensors", hint=f"If it has pickles only: {CONVERT}")
    return folder


def _unreachable(ref: str) -> EdgeqError:
    hint = "Go online, or give a local folder or a .gguf file"
    return EdgeqError(f"the weights of {ref} are not in the local cache, and the hub is out of reach", hint=hint)
