"""HTTP from the operator's machine, through the proxies that its environment names."""

import os
from typing import Any

import httpx

from plan.errors import PlanError

PROXIES = ("ALL_PROXY", "HTTPS_PROXY", "HTTP_PROXY", "all_proxy", "https_proxy", "http_proxy")


def client(**options: Any) -> httpx.Client:
    """A client that follows redirects; `options` are httpx's.

    Raises:
        PlanError: the environment names a proxy that is none, as desktops write them (`socks://`).
    """
    try:
        return httpx.Client(follow_redirects=True, **options)
    except (ValueError, httpx.InvalidURL):
        named = [name for name in PROXIES if os.environ.get(name)]
        raise PlanError(
            [
                f"{', '.join(named) or 'proxy'}: is no proxy that can be used. Write it as "
                "http://HOST:PORT or socks5://HOST:PORT, or unset it for this command."
            ]
        ) from None
