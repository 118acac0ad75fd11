"""Rules, dashboards and their provisioning; `python -m dashboards` writes the JSON files again."""
