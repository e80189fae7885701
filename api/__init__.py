"""The HTTP surface: OpenAI's fine-tuning API, and ours beside it. Never imports torch."""
