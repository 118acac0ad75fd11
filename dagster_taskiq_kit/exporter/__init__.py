"""The Prometheus exporter: a catalogue of metrics, a pure collector, and a server."""
