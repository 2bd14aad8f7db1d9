"""Applications, the tenants of the server."""
