"""Saved adapters in forms that others load without this package."""

from tombola.exporting.export import export

__all__ = ["export"]
