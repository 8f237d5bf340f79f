"""The process of a run in a sweep, and of each of several ranks: `python -m tombola_cli.worker RUN_DIR`."""

from __future__ import annotations

import signal
import sys
from pathlib import Path

from tombola_cli.parent import die_with_parent


def main(run_dir: Path) -> int:
    """The run's exit status."""
    die_with_parent()
    from tombola.run import main as run  # torch from here on

    try:
        return run(run_dir)
    except KeyboardInterrupt:
        return 128 + signal.SIGINT


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
