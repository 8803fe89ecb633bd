"""One file a family of devices."""
