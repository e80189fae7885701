"""What a run leaves to look at: drawn when it has ended, by a process of its own, without torch."""
