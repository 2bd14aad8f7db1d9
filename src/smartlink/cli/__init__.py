"""The command line: thin commands that wire the packages together. Only this one imports both server and portal."""
