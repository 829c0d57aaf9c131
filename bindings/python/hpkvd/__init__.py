"""HPKV through hpkvd, the local daemon that shares one connection to it.

    from hpkvd import Client

    with Client() as hpkv:
        hpkv.set("user:1", {"name": "Ada"})
        print(hpkv.get("user:1"))
        for event in hpkv.subscribe("user:*"):
            print(event)

Client        requests and subscriptions, one at a time, that wait
AsyncClient   the same for asyncio, with any number of requests under way
Mirror        a dict that is kept equal to the keys of a pattern
HpkvError     why a request failed, and whether it was executed

The daemon's socket is an argument, else $HPKVD_SOCKET, else $XDG_RUNTIME_DIR/hpkvd.sock if that is there, else
/run/hpkvd/hpkvd.sock. Nothing but the standard library is needed.
"""

from ._aio import AsyncClient, AsyncSubscription
from ._client import Client, Subscription
from ._mirror import Mirror
from ._wire import Change, Connection, Ended, Event, Gap, HpkvError, Json, Page, Record

__version__ = "0.1.0"
__all__ = [
    "AsyncClient",
    "AsyncSubscription",
    "Change",
    "Client",
    "Connection",
    "Ended",
    "Event",
    "Gap",
    "HpkvError",
    "Json",
    "Mirror",
    "Page",
    "Record",
    "Subscription",
]
