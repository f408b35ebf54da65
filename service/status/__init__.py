"""What a person on call sees: metrics, health, a page, and systemd's line, all from one board."""
