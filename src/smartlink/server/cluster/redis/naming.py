"""What keys and channels are called in Redis.

All names begin with the prefix. Keys of one channel share one hash tag, so that a script may touch them together on a
Cluster; so do the keys about nodes. A key's first letter after the prefix says what it holds; see each engine.
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
        """The beginning of the keys of the webhook queue."""

    def publications(self, app_id: str, channel: str) -> str:
        """The Redis channel on which a channel's publications travel."""
        return f"{self.prefix}:b:{{{self.entry(app_id, channel)}}}"

    def log(self, app_id: str, channel: str) -> str:
        """The stream of a channel's last publications, for nodes that were away for a moment."""
        return f"{self.prefix}:q:{{{self.entry(app_id, channel)}}}"

    def heartbeat(self, node_id: str, number: int = 0) -> str:
        """A Redis channel that only this node hears."""
        return f"{self.prefix}:p:{{{node_id}.{number}}}"

    def of_channel(self, kind: str, app_id: str, channel: str) -> str:
        return f"{self.prefix}:{kind}:{{{self.entry(app_id, channel)}}}"

    def of_nodes(self, kind: str) -> str:
        return f"{self.prefix}:{{nodes}}:{kind}"

    def channels_of_node(self, node_id: str) -> str:
        """The set of channels that a node has entries on, as `entry` writes them."""
        return f"{self.prefix}:k:{{{node_id}}}"

    def of_app(self, kind: str, app_id: str) -> str:
        return f"{self.prefix}:{kind}:{{{quote(app_id, safe='')}}}"

    def receipt(self, app_id: str, key: str) -> str:
        return f"{self.prefix}:r:{quote(app_id, safe='')}:{key}"

    @staticmethod
    def entry(app_id: str, channel: str) -> str:
        """One text for a channel of an app; braces cannot come in by the app's id."""
        return f"{quote(app_id, safe='')}:{channel}"

    @staticmethod
    def parse_entry(entry: str) -> tuple[str, str] | None:
        """App id and channel of what `entry` made; None for anything else."""
        app_id, colon, channel = entry.partition(":")
        return (unquote(app_id), channel) if app_id and colon and channel else None
