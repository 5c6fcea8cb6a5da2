"""Real packages that fail or limp in a read-only image, replayed with the hook and no other setting."""
