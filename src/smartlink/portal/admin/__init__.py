"""What admins see and do: figures, people, channels, failed events, and a record of what they did."""
