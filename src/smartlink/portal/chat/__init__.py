"""Chat: the general room, direct messages, typing, read receipts."""
