"""What the four heartbeat commands beside this folder share."""
