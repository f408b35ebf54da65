"""The service: settings, the loop both modes share, delivery, logs. The only layer that knows inputs, core and outputs."""
