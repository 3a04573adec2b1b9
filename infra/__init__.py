"""What runs the product elsewhere: rules, dashboards, manifests."""
