"""The end of the road: where an artifact lies, how to load it, how it was proved and measured, a report of it all."""

from edgeq.deliver.delivery import Delivery, deliver

__all__ = ["Delivery", "deliver"]
