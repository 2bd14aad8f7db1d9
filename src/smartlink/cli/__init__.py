"""The command line: thin commands that wire the houses together. The only place that knows both server and portal."""
