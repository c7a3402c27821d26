"""Allocation: which matrix gets which grid under a budget of bytes."""
