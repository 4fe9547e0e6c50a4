"""One module per part of BookReader: capture and verify side by side."""
