"""The server's runtime: tasks, timers, rates, counters."""
