"""Render results/tables from conf/table, results/paper and results/records: `python scripts/tables.py --help`."""

import signal
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "src"))  # works before the package is installed

from tombola_cli.tables import main

if __name__ == "__main__":
    if hasattr(signal, "SIGPIPE"):
        signal.signal(signal.SIGPIPE, signal.SIG_DFL)  # `... --list NAME | head` is no error
    sys.exit(main())
