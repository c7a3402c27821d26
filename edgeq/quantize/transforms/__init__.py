"""Transforms: equivalent rewritings of the network before its weights are quantized."""
