"""Users: who they are, how they sign in, their tokens and sessions."""
