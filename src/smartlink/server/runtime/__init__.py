"""What everything runs on: tasks, timers, rates, counters."""
