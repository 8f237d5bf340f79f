"""Whether a model or a data set of the Hugging Face hub can be had, found out in seconds and without torch."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path
from typing import Any

from tombola_cli.config.reach import SECONDS, unreachable


def hub_fault(model: dict[str, Any]) -> str | None:
    """Why the model's files cannot be had, with the ways on; None where they are cached or the hub gives them.

    Asks by `snapshot_download`, which fails at once when offline; `hf_hub_download` retries for 23 seconds.
    """
    return _fault(model["name"], model["repo"], model["revision"] or "main", bool(model.get("gated")))


def data_fault(task: dict[str, Any]) -> str | None:
    """Why a data set's commit cannot be had, with the ways on; None where it is cached or the hub answers."""
    return _data_fault(task["name"], task["repo"], task["revision"])


@lru_cache(maxsize=32)  # the jobs of a sweep ask about the same data
def _data_fault(name: str, repo: str, revision: str) -> str | None:
    # 0.2 s of CPU, for data of the hub only
    from huggingface_hub import constants, snapshot_download

    try:
        snapshot_download(repo, repo_type="dataset", revision=revision, local_files_only=True)
        return None
    except (OSError, ValueError):  # not in the cache
        reason = unreachable(constants.ENDPOINT)
    what = f"task={name}: {repo} (revision {revision}) is not in the local cache, and {reason}"
    return f"{what}; connect, or type task.data_dir=DIR for a local copy" if reason else None


@lru_cache(maxsize=32)  # the jobs of a sweep ask about the same model
def _fault(name: str, repo: str, revision: str, gated: bool) -> str | None:
    # 0.2 s of CPU, for hub models only
    from huggingface_hub import HfApi, constants, snapshot_download
    from huggingface_hub.errors import GatedRepoError, RepositoryNotFoundError, RevisionNotFoundError

    try:
        cached = Path(snapshot_download(repo, revision=revision, local_files_only=True))
        if any(cached.glob("*.safetensors")):
            return None
    except (OSError, ValueError):  # not in the cache
        pass
    what = f"model={name}: {repo} (revision {revision}) is not in the local cache"
    local = "model.path=DIR for a local copy"
    if reason := unreachable(constants.ENDPOINT):
        login = " and, as it is gated, `hf auth login`" if gated else ""
        return f"{what}, and {reason}; go online{login}, or type {local}"
    try:
        HfApi().model_info(repo, revision=revision, timeout=SECONDS)  # snapshot_download itself would wait for longer
        # A small file that is gated like the weights are: access to it is access to them.
        snapshot_download(repo, revision=revision, allow_patterns=["config.json"], etag_timeout=SECONDS)
        return None
    except GatedRepoError:
        licence = f"accept its licence on https://huggingface.co/{repo}, then `hf auth login`"
        return f"{what}, and it is gated: {licence}; or type {local}"
    except RevisionNotFoundError:
        return f"{what}, and the hub has no such revision; give model.revision=main or another one, or type {local}"
    except RepositoryNotFoundError:
        return (
            f"{what}, and the hub has no such model for this account; `hf auth login` if it is private, or type {local}"
        )
    except Exception as error:  # the hub's library lets the errors of its transport through (a proxy's, for one)
        text = str(error).strip() or type(error).__name__
        return f"{what}, and the hub did not give it ({text.splitlines()[0]}); try again, or type {local}"
