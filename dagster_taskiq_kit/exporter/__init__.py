"""The exporter: metrics for Prometheus, and the fleet page for people."""
