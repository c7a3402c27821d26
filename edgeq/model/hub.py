"""A Hugging Face hub id becomes a ModelSpec: config.json and safetensors headers, never a weight."""

from __future__ import annotations

import logging
import socket
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.parse import SplitResult, urlsplit
from urllib.request import getproxies, proxy_bypass

from edgeq.errors import EdgeqError
from edgeq.model.fields import load_json
from edgeq.model.folder import build
from edgeq.model.headers import Header
from edgeq.model.spec import ModelSpec

PORTS = {"https": 443, "http": 80, "socks5": 1080, "socks5h": 1080, "socks4": 1080}


class Unreachable(EdgeqError):
    """The hub can't be reached and nothing is cached: what is known offline may still answer."""


def read_hub(ref: str, *, revision: str | None = None, offline: bool = False) -> ModelSpec:
    """The architecture of a hub model, from the cache where the hub can't be reached.

    Raises:
        Unreachable: no network (or `offline`) and no cached copy.
        EdgeqError: no such model, it is gated, or its description is damaged.
    """
    quiet()
    offline = offline or not reachable()
    config_path = _file(ref, "config.json", revision, offline)
    if config_path is None:
        raise EdgeqError(f"{ref} has no config.json", hint="Is it a model of transformers' layout, and not a GGUF?")
    generation_path = _file(ref, "generation_config.json", revision, offline)
    generation = load_json(generation_path) if generation_path else None
    config = load_json(config_path)
    headers = {} if offline else _headers(ref, revision)
    spec = build(config, generation, headers, name=ref, where=f"{ref}/config.json")
    return replace(spec, origin="hub", location=ref, source=f"https://huggingface.co/{ref}")


def _file(ref: str, name: str, revision: str | None, offline: bool) -> Path | None:
    """A small file of the repository, None when the repository has none of that name."""
    from huggingface_hub import errors as hub
    from huggingface_hub import hf_hub_download

    try:
        return Path(hf_hub_download(ref, name, revision=revision, local_files_only=offline, etag_timeout=10))
    except hub.EntryNotFoundError as error:
        # "not in the cache" is one kind of it
        if isinstance(error, hub.LocalEntryNotFoundError):
            if name != "config.json":
                return None
            raise _unreachable(ref, offline) from error
        return None
    except hub.GatedRepoError as error:
        hint = f"Accept its terms at https://huggingface.co/{ref}, then run `hf auth login`"
        raise EdgeqError(f"{ref} is gated", hint=hint) from error
    except hub.RevisionNotFoundError as error:
        raise EdgeqError(f"{ref} has no revision {revision!r}") from error
    except hub.RepositoryNotFoundError as error:
        hint = "Check the name; a private model needs `hf auth login`"
        raise EdgeqError(f"the hub has no model {ref}", hint=hint) from error
    except hub.HFValidationError as error:
        raise EdgeqError(f"{ref!r} is not a hub id") from error
    except (hub.HfHubHTTPError, hub.OfflineModeIsEnabled, OSError, transport_error()) as error:
        raise _unreachable(ref, offline) from error


def _unreachable(ref: str, offline: bool) -> Unreachable:
    what = (
        f"{ref} is not in the local cache, and the hub is out of reach"
        if offline
        else f"the hub can't be reached for {ref}"
    )
    return Unreachable(what, hint="Go online, or give a local folder, a .gguf file or a size class such as 7B")


def reachable() -> bool:
    """Whether the hub, or the proxy before it, answers at all: huggingface_hub itself retries for half a minute."""
    from huggingface_hub.constants import ENDPOINT, HF_HUB_OFFLINE

    if HF_HUB_OFFLINE:
        return False
    url = _address(ENDPOINT)
    try:
        proxy = getproxies().get(url.scheme)
        if proxy and not proxy_bypass(url.hostname or ""):  # then this machine need not know the hub's name
            url = urlsplit(proxy if "://" in proxy else f"http://{proxy}")
        with socket.create_connection((url.hostname, url.port or PORTS.get(url.scheme, 80)), timeout=5):
            return True
    except (OSError, ValueError):  # a ValueError: an address that is none
        return False


def _address(endpoint: str) -> SplitResult:
    try:
        url = urlsplit(endpoint)
        _ = url.port  # checks it
    except ValueError as error:
        raise EdgeqError(f"HF_ENDPOINT is not an address: {error}", where=endpoint, hint="Unset it") from error
    return url


def quiet() -> None:
    """Keep huggingface_hub from telling each of its retries: the outcome is told in one line."""
    logging.getLogger("huggingface_hub").setLevel(logging.ERROR)


def transport_error() -> type[Exception]:
    """The base of the HTTP library's errors, whichever library this huggingface_hub stands on."""
    from huggingface_hub.errors import HfHubHTTPError

    return next((c for c in HfHubHTTPError.__mro__ if c.__name__ == "HTTPError"), OSError)


def _headers(ref: str, revision: str | None) -> Mapping[str, Header]:
    """The headers of the model's safetensors files; empty when it has none or the hub stops answering."""
    from huggingface_hub import errors as hub
    from huggingface_hub import get_safetensors_metadata

    try:
        found: Any = get_safetensors_metadata(ref, revision=revision)
    except (hub.NotASafetensorsRepoError, hub.SafetensorsParsingError, hub.HfHubHTTPError, OSError, transport_error()):
        return {}
    return {
        name: Header(info.dtype, tuple(info.shape))
        for file in found.files_metadata.values()
        for name, info in file.tensors.items()
    }
