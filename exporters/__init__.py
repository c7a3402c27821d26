"""Exporters: a neutral checkpoint becomes one runtime's artifact. Found through entry points."""
