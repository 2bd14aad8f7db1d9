"""Chat: general chat, direct messages, typing indicators, read receipts."""
