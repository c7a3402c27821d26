"""The decoder, written once over abstract operations, and its torch backend."""
