"""SmartLink: a Pusher-compatible realtime server, a broadcasting library, and a chat portal on both."""
