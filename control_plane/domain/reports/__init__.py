"""What a report says, as one value: JSON and PDF are two forms of it. Pure."""
