"""What an operator on call sees: metrics, health, a page and systemd's status line, all from one board."""
