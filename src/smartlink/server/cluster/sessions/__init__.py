"""What resumable sessions of clients hold while no socket is theirs."""
