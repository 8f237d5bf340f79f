"""A task from its YAML: the loader that `_target_` names, given the options that are the loader's own."""

from collections.abc import Mapping
from typing import Any

from hydra.errors import InstantiationException
from hydra.utils import instantiate

from tombola.tasks.example import DataError, Task

# Fields that plans, checks, identities and tables read, and the loader does not.
DESCRIPTION = frozenset(
    {"name", "licence", "version", "kind", "roles", "repo", "revision", "files", "optional_files"}
    | {"labels", "metrics", "rows", "tokens", "hub_datasets"}
)  # fmt: skip


def load_task(config: Mapping[str, Any], role: str) -> Task:
    """The task that a resolved `task` config describes, for a model of `role`.

    Raises:
        DataError: its data is missing, torn or of the wrong layout, or its loader is yet to come.
    """
    if config.get("_target_") is None:
        raise DataError(f"task={config['name']}: its loader is yet to come; plan=true works, and so do its tables")
    options = {name: value for name, value in config.items() if name not in DESCRIPTION}
    try:
        return instantiate(options, role=role, _convert_="all")
    except InstantiationException as error:  # Hydra wraps the task's own one-line error in its own
        if isinstance(error.__cause__, ValueError):
            raise error.__cause__ from None
        raise
