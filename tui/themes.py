"""Two themes of the application's own, dark and light. Every pair of text and ground has a contrast of 4.5 or more."""

from __future__ import annotations

from textual.theme import Theme

DARK = Theme(
    name="edgeq-dark",
    primary="#5fb3d9",
    secondary="#8fa6b8",
    accent="#e0b062",
    success="#7cc48a",
    warning="#e0b062",
    error="#ef8a80",
    foreground="#dfe6ea",
    background="#14181b",
    surface="#1b2125",
    panel="#262e33",
    dark=True,
    variables={"footer-key-foreground": "#5fb3d9", "block-cursor-text-style": "bold"},
)
LIGHT = Theme(
    name="edgeq-light",
    primary="#1c6487",
    secondary="#4c6272",
    accent="#80560c",
    success="#22682f",
    warning="#80560c",
    error="#a3281d",
    foreground="#1d2529",
    background="#f7f9fa",
    surface="#ffffff",
    panel="#e4eaed",
    dark=False,
    variables={"footer-key-foreground": "#1c6487", "block-cursor-text-style": "bold"},
)
