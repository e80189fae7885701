"""The engine: trains what a job folder says, in a process of its own (docs/engine.md)."""
