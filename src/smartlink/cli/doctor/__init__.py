"""`smartlink doctor`: looks at everything that must be right, and says what to do about what is not."""
