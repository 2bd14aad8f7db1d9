"""Names of keys and channels in Redis.

All names begin with the prefix. Keys of one channel share one hash tag, so that a script may use them together on a
Cluster; so do the keys about nodes. A key's first letter after the prefix is its kind; see each engine.
"""

from __future__ import annotations

from urllib.parse import quote, unquote

__all__ = ["Names"]


class Names:
    """Names under one prefix."""

    def __init__(self, prefix: str) -> None:
        self.prefix = prefix
        self.control = f"{prefix}:b:{{control}}"
        self.control_log = f"{prefix}:q:{{control}}"
        self.webhooks = f"{prefix}:{{webhooks}}:"
        """Prefix of the webhook queue's keys."""

    def publications(self, app_id: str, channel: str) -> str:
        """The Redis channel of a channel's publications."""
        return f"{self.prefix}:b:{{{self.entry(app_id, channel)}}}"

    def log(self, app_id: str, channel: str) -> str:
        """The stream of a channel's last publications, for nodes that missed some."""
        return f"{self.prefix}:q:{{{self.entry(app_id, channel)}}}"

    def heartbeat(self, node_id: str, number: int = 0) -> str:
        """A Redis channel to which only this node subscribes."""
        return f"{self.prefix}:p:{{{node_id}.{number}}}"

    def of_channel(self, kind: str, app_id: str, channel: str) -> str:
        return f"{self.prefix}:{kind}:{{{self.entry(app_id, channel)}}}"

    def of_nodes(self, kind: str) -> str:
        return f"{self.prefix}:{{nodes}}:{kind}"

    def channels_of_node(self, node_id: str) -> str:
        """The set of channels on which a node has entries, in the form of `entry`."""
        return f"{self.prefix}:k:{{{node_id}}}"

    def of_app(self, kind: str, app_id: str) -> str:
        return f"{self.prefix}:{kind}:{{{quote(app_id, safe='')}}}"

    def receipt(self, app_id: str, key: str) -> str:
        return f"{self.prefix}:r:{quote(app_id, safe='')}:{key}"

    def session(self, app_id: str, name: str) -> str:
        return f"{self.prefix}:e:{quote(app_id, safe='')}:{name}"

    def mark(self, app_id: str, subject: str) -> str:
        return f"{self.prefix}:g:{quote(app_id, safe='')}:{subject}"

    @staticmethod
    def entry(app_id: str, channel: str) -> str:
        """Encode a channel of an app as one text; the app id cannot contain braces."""
        return f"{quote(app_id, safe='')}:{channel}"

    @staticmethod
    def parse_entry(entry: str) -> tuple[str, str] | None:
        """App id and channel of an `entry`; None for anything else."""
        app_id, colon, channel = entry.partition(":")
        return (unquote(app_id), channel) if app_id and colon and channel else None
