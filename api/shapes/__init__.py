"""What answers look like: OpenAI's objects field by field, then ours, made from `models` rows."""
