"""Search the Hugging Face hub for text models."""

from __future__ import annotations

from dataclasses import dataclass

from edgeq.model.hub import Unreachable, quiet, reachable, transport_error

MOST = 20
OFFLINE = "the hub is out of reach"


@dataclass(frozen=True, slots=True)
class OnHub:
    """`downloads` in the last month; `gated`: its terms have to be accepted on the hub first."""

    ref: str
    downloads: int
    gated: bool


def search_hub(text: str, most: int = MOST) -> list[OnHub]:
    """Models that write text and have safetensors, whose name holds `text`, the most downloaded first.

    Raises:
        Unreachable: no network, `HF_HUB_OFFLINE`, or the hub does not answer.
    """
    quiet()
    if not reachable():
        raise Unreachable(OFFLINE, hint="Go online, or take a model on this machine")
    from huggingface_hub import HfApi
    from huggingface_hub import errors as hub

    try:
        found = list(
            HfApi().list_models(
                search=text, filter="safetensors", pipeline_tag="text-generation", sort="downloads", limit=most
            )
        )
    except (hub.HfHubHTTPError, OSError, ValueError, transport_error()) as error:
        raise Unreachable(f"{OFFLINE}: {_line(error)}", hint="Take a model on this machine, or try again") from error
    return [OnHub(one.id, one.downloads or 0, bool(one.gated)) for one in found]


def _line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:120]
