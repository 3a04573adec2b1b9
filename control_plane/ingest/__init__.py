"""From the spools on the data plane's disks to Postgres: `shipper` (no database password) and `ingester`."""
