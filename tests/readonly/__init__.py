"""What works in a read-only root that is this machine's own."""
