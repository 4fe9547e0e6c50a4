"""The words of this project and their rules: standard library only, no I/O, no clock of its own."""
