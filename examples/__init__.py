"""Programs that use the service from outside, each runnable by itself."""
