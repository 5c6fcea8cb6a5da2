"""The private writable layer over the environment of an image: made, joined, published."""
