"""The service: settings, pipeline, delivery, state, telemetry. It joins inputs, core and outputs."""
