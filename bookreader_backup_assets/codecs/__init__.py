"""Reversible steps on a byte stream, each named by its suffix."""
