"""The authorisation endpoints as a router of your framework's own. Each needs that framework alone."""
