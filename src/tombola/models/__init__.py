"""Base models: loaded frozen with their processor and head, or built empty on the meta device to plan a run."""

from tombola.models.host import Host
from tombola.models.load import load_host
from tombola.models.planning import Plan, plan
from tombola.models.unavailable import ModelUnavailable

__all__ = ["Host", "ModelUnavailable", "Plan", "load_host", "plan"]
