"""Everything that answers before torch is imported: help, config checks, identity, records, tables, launch, sweeps."""

import importlib.util
import sys

# The scripts of a checkout start with any Python: a new user's first mistake.
if importlib.util.find_spec("hydra") is None:
    sys.exit(
        f"error: {sys.executable} has not what tombola needs. "
        "`make demo` sets up .venv once, `. .venv/bin/activate` chooses it in each shell"
    )
