"""From a released batch to every output, each at its own pace."""
