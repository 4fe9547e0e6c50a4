"""Servers that we start ourselves, for scratch restores, the demo and the tests."""
