"""The groups of `conf/` and their choices, read from the folder itself: adding a YAML adds the choice."""

from __future__ import annotations

from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[3]
CONF = REPOSITORY / "conf"
GROUPS = ("method", "model", "task", "training", "recipe", "forgetting", "launch", "log")


def choices(conf_dir: Path) -> dict[str, list[str]]:
    """The names that each group takes; a file in a sub-folder is `folder/name`, as in `task=glue/cola`."""
    return {group: _names(conf_dir / group) for group in GROUPS}


def purpose(conf_dir: Path, group: str, choice: str) -> str:
    """The first comment line of a choice's YAML, which says what it is; empty where it has none."""
    with (conf_dir / group / f"{choice}.yaml").open(encoding="utf-8") as file:
        lines = [line.strip() for line in file if line.startswith("#") and "@package" not in line]
    return lines[0].lstrip("# ").rstrip(".") if lines else ""


def _names(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).with_suffix("").as_posix() for path in folder.rglob("*.yaml"))
