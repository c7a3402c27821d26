"""Refinements: all matrices of a block improved together, against the float block's output."""
