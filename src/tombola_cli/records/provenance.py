"""Where a result comes from: commit, packages, hardware, command - and nothing about whose machine it was.

Call `gather` when a run starts: the files may have changed by the time it ends.
"""

from __future__ import annotations

import os
import platform
import shlex
import subprocess
import sys
from collections.abc import Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

from tombola_cli.records.portable import DATA_VARIABLE, portable

# What can change a number; the rest of an environment follows from these.
PACKAGES = (
    *("tombola", "torch", "transformers", "peft", "accelerate", "deepspeed", "safetensors", "tokenizers"),
    *("numpy", "scikit-learn", "gguf", "hydra-core", "lm-eval"),
)
GIT_SECONDS = 30
# Runs and their evidence do not change what the code does.
NOT_CODE = (":!results", ":!runs")


def gather(
    *, root: Path, argv: Sequence[str], model: Mapping[str, Any], data: Mapping[str, Any], gpus: Sequence[str] = ()
) -> dict[str, Any]:
    """A record's `provenance`; `root` is the repository, `gpus` the devices' names (which only torch can tell)."""
    return {
        "commit": _git(root, "rev-parse", "HEAD"),
        "dirty": is_dirty(root),
        "packages": package_versions(),
        "hardware": hardware(gpus),
        "compiled": is_compiled(root),
        "model": portable(dict(model), root=root),
        "data": portable(dict(data), root=root),
        "command": command(argv, root=root),
    }


def command(argv: Sequence[str], *, root: Path) -> str:
    """The command as one would type it in the repository, on any machine: `python train.py method=bola ...`."""
    return " ".join(["python", *(_quoted(portable(word, root=root)) for word in argv)])


def is_dirty(root: Path) -> bool | None:
    """Whether the code differs from its commit, untracked files included; null outside git."""
    status = _git(root, "status", "--porcelain", "--", ".", *NOT_CODE)
    return None if status is None else bool(status)


def package_versions() -> dict[str, str]:
    """The installed ones of `PACKAGES`, and Python's own version."""
    found = {"python": platform.python_version()}
    for name in PACKAGES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found


def is_compiled(root: Path) -> bool:
    """Whether the C of adapters/ops was built: on a CPU its sums differ from torch's in the last bits."""
    return any((root / "src" / "tombola" / "adapters" / "ops").glob("_cpu.*"))


def hardware(gpus: Sequence[str] = ()) -> dict[str, Any]:
    """CPU model, the cores this process may use, memory in bytes, the GPUs' names. No host name."""
    return {
        "cpu": _cpu_model(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "memory_bytes": _memory_bytes(),
        "gpus": list(gpus),
        "system": f"{platform.system()} {platform.machine()}",
    }


def _quoted(word: str) -> str:
    """Quoted for the shell, unless the only special character is the variable that the shell should fill in."""
    plain = word.replace(f"${DATA_VARIABLE}", "").replace("$HOME", "")
    return word if plain and shlex.quote(plain) == plain else shlex.quote(word)


def _cpu_model() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        for line in cpuinfo.read_text(encoding="utf-8", errors="replace").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def _memory_bytes() -> int | None:
    if sys.platform == "win32":
        return None
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def _git(root: Path, *words: str) -> str | None:
    """What git says, or null where there is no git or no repository."""
    environment = {**os.environ, "GIT_OPTIONAL_LOCKS": "0"}  # a status must not make a commit beside it fail
    try:
        done = subprocess.run(
            ["git", "-C", str(root), *words], capture_output=True, text=True, timeout=GIT_SECONDS, env=environment
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() if done.returncode == 0 else None
