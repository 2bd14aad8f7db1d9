"""The HTTP fallback: `xhr_streaming` and `xhr_polling` of pusher-js, where the network lets no WebSocket pass."""
