"""Runtimes: an artifact opened and run. What they share: text, sampling, the generation loop, the session."""
