"""What Prometheus and Grafana are given, where it follows from something else: `python -m infra.monitoring`."""
