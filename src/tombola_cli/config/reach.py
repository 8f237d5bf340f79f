"""Whether a server answers, found out in two seconds at most."""

from __future__ import annotations

import os

SECONDS = 2


def unreachable(url: str) -> str | None:
    """Why `url`'s server cannot be asked, in words that end a sentence; None where it answers, whatever it says."""
    if os.environ.get("HF_HUB_OFFLINE", "0").lower() in ("1", "true", "yes", "on"):
        return "HF_HUB_OFFLINE is set"
    import urllib.error  # 0.05 s, for what is not here yet
    import urllib.request

    try:
        urllib.request.urlopen(urllib.request.Request(url, method="HEAD"), timeout=SECONDS).close()
    except urllib.error.HTTPError:  # an answer, if not a welcome
        return None
    except OSError as error:
        return f"{url.split('/')[2]} cannot be reached ({getattr(error, 'reason', error)})"
    return None
