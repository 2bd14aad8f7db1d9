"""Starting, stopping and replacing the server: the wiring, one process, its workers, the machine."""
