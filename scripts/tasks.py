"""Render docs/tasks.md from conf/task: `python scripts/tasks.py --help`."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "src"))  # works before the package is installed

from tombola_cli.tables import tasks_main

if __name__ == "__main__":
    sys.exit(tasks_main())
