"""The HTTP fallback: `xhr_streaming` and `xhr_polling` of pusher-js, for networks that block WebSockets."""
