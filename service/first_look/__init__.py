"""A first look at a site, the end of `--check --connect`: what is ready, what is weak, and what to set."""
