"""Solvers: how codes are chosen on a grid."""
