"""The core: connections, channels and users of one node, and the operations on them."""
