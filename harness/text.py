"""Foreign text made harmless, wherever it is shown."""

from __future__ import annotations


def clean(text: str) -> str:
    """Everything that is not a printable character made visible, line breaks and tabs too."""
    return "".join(char if char.isprintable() else repr(char)[1:-1] for char in text)
