"""Error and close codes, and how clients react to them.

pusher-js reacts to close codes by range: after 4000 to 4099 it does not reconnect, after 4100 to 4199 after a second,
after 4200 to 4299 at once, after 4300 and up never. So overload is 4100 and a drain 4200; 43xx codes are only sent in
`pusher:error`, on connections that stay open. 4501 is for clients of other protocols, which do not reconnect after
codes from 4500 either.
"""

from __future__ import annotations

import enum

__all__ = ["Code"]


class Code(enum.IntEnum):
    """Error and close codes. Source: Pusher Channels protocol, "Error codes"; below 4000 RFC 6455, section 7.4."""

    NORMAL = 1000
    GOING_AWAY = 1001
    PROTOCOL_ERROR = 1002
    UNSUPPORTED_DATA = 1003
    INVALID_TEXT = 1007
    TOO_BIG = 1009
    INTERNAL_ERROR = 1011

    TLS_ONLY = 4000
    NO_SUCH_APP = 4001
    APP_DISABLED = 4003
    OVER_QUOTA = 4004
    WRONG_PATH = 4005
    INVALID_VERSION = 4006
    UNSUPPORTED_PROTOCOL = 4007
    UNAUTHORIZED = 4009

    OVER_CAPACITY = 4100
    RECONNECT = 4200
    NO_PONG = 4201
    IDLE = 4202
    CLIENT_EVENT_REFUSED = 4301
    WATCHLIST_TOO_LONG = 4302
    OTHER_PROTOCOL = 4501
