"""What operators see: metrics for Prometheus, health and readiness."""
