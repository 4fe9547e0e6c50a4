"""Backups of BookReader AI as Dagster assets: captured, verified, and restorable without us."""

__version__ = "0.1.0"
