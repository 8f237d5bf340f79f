"""Give a trained adapter away: `python scripts/export.py --help`."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "src"))  # works before the package is installed

from tombola_cli.export import main

if __name__ == "__main__":
    sys.exit(main())
